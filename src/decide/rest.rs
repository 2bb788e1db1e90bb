//! How much a sweep rests between its batches, so that whoever works beside it hardly feels it.
//!
//! Batches may take a share of the time, `duty_cycle`: after each the worker rests for what it owes.
//! Where a backlog lasts all the same, the share is doubled minute by minute, up to all.

use std::time::Duration;

/// Rests shorter than this are put together: a wait is in whole milliseconds.
const WORTH_IT: Duration = Duration::from_millis(5);

/// What counts of a batch at most. One that took longer has waited, for a lock or a trigger, rather
/// than worked.
const MOST: Duration = Duration::from_millis(20);

/// A backlog that has lasted so long is worked off at twice the share.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one table's batches owe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    owed: Duration,
}

/// The share of the time, in percent, that the batches of a backlog which has lasted for `backlog`
/// may take.
pub fn share(duty_cycle: u32, backlog: Duration) -> u32 {
    let doublings = (backlog.as_secs() / PATIENCE.as_secs()).min(7) as u32;
    (duty_cycle << doublings).clamp(1, 100)
}

impl Rest {
    /// A batch took `took`, where batches may take `share` percent of the time.
    pub fn worked(&mut self, took: Duration, share: u32) {
        self.owed += took.min(MOST) * (100 - share.min(100)) / share.max(1);
    }

    /// How long to rest now, `most` at the most, which is then paid.
    pub fn take(&mut self, most: Duration) -> Duration {
        if self.owed < WORTH_IT {
            return Duration::ZERO;
        }
        let rest = self.owed.min(most);
        self.owed -= rest;
        rest
    }

    /// What is still owed when it is others' turn; paid by leaving the table alone for so long.
    pub fn settle(&mut self) -> Duration {
        std::mem::take(&mut self.owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn batches_take_their_share_of_the_time() {
        let mut rest = Rest::default();
        rest.worked(ms(1), 25);
        assert_eq!(rest.take(ms(250)), Duration::ZERO, "not worth it yet");
        rest.worked(ms(1), 25);
        assert_eq!(rest.take(ms(250)), ms(6));
        assert_eq!(rest.take(ms(250)), Duration::ZERO);
    }

    #[test]
    fn what_cannot_be_paid_now_is_paid_later() {
        let mut rest = Rest::default();
        rest.worked(ms(10), 1);
        assert_eq!(rest.take(ms(250)), ms(250));
        assert_eq!(rest.settle(), ms(740));
        assert_eq!(rest.settle(), Duration::ZERO);
    }

    #[test]
    fn with_all_the_time_there_is_no_rest() {
        let mut rest = Rest::default();
        rest.worked(ms(1000), 100);
        assert_eq!(rest.settle(), Duration::ZERO);
    }

    #[test]
    fn a_batch_that_waited_is_no_reason_to_rest_for_long() {
        let mut rest = Rest::default();
        rest.worked(ms(60_000), 10);
        assert_eq!(rest.settle(), ms(180));
    }

    #[test]
    fn a_backlog_that_lasts_is_worked_off_faster_and_faster() {
        let shares = [0, 59, 60, 120, 180, 240, 86_400].map(|s| share(10, Duration::from_secs(s)));
        assert_eq!(shares, [10, 10, 20, 40, 80, 100, 100]);
        assert_eq!(share(100, Duration::ZERO), 100);
    }
}
