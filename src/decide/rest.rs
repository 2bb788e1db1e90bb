//! How much a sweep rests between its batches, so that whoever works beside it hardly feels it.
//!
//! Batches may take a share of the time, `duty_cycle`: after each the worker rests for what it owes.
//! Where a backlog lasts all the same, the share is doubled minute by minute, up to all.

use super::Ticks;
use std::time::Duration;

/// Rests shorter than this are put together: a wait is in whole milliseconds.
const WORTH_IT: Duration = Duration::from_millis(5);

/// What counts of a batch at most. One that took longer has waited, for a lock or a trigger, rather
/// than worked.
const MOST: Duration = Duration::from_millis(20);

/// A backlog that has lasted so long is worked off at twice the share.
const PATIENCE: Duration = Duration::from_secs(60);

/// What slows down the batches of one table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pacing {
    rest: Rest,
    /// Since when there is a backlog.
    backlog: Option<Ticks>,
}

impl Pacing {
    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// A visit in the cycle that `began` then came to an end, or was cut short.
    pub fn visited(&mut self, began: Ticks, cut_short: bool) {
        self.backlog = cut_short.then(|| self.backlog.unwrap_or(began));
    }

    /// Nobody works at the table: its sweep has failed, or was switched off. What it is like when
    /// that is over will be seen.
    pub fn forget(&mut self) {
        *self = Pacing::default();
    }

    /// A batch ended now, after it `took` so long.
    pub fn worked(&mut self, now: Ticks, took: Duration, duty_cycle: u32) {
        let lasted = self.backlog.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.rest.worked(took, share(duty_cycle, lasted));
    }

    /// How long to rest now, `most` at the most.
    pub fn rest(&mut self, most: Duration) -> Duration {
        self.rest.take(most)
    }

    /// What is still owed when it is others' turn; paid by leaving the table alone for so long.
    pub fn settle(&mut self) -> Duration {
        std::mem::take(&mut self.rest.owed)
    }
}

/// What one table's batches owe.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    owed: Duration,
}

/// The share of the time, in percent, that the batches of a backlog which has lasted for `backlog`
/// may take.
fn share(duty_cycle: u32, backlog: Duration) -> u32 {
    let doublings = (backlog.as_secs() / PATIENCE.as_secs()).min(7) as u32;
    (duty_cycle << doublings).clamp(1, 100)
}

impl Rest {
    /// A batch took `took`, where batches may take `share` percent of the time.
    fn worked(&mut self, took: Duration, share: u32) {
        self.owed += took.min(MOST) * (100 - share.min(100)) / share.max(1);
    }

    /// How long to rest now, `most` at the most, which is then paid.
    fn take(&mut self, most: Duration) -> Duration {
        if self.owed < WORTH_IT {
            return Duration::ZERO;
        }
        let rest = self.owed.min(most);
        self.owed -= rest;
        rest
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
        assert_eq!(rest.take(ms(1000)), ms(740));
        assert_eq!(rest.take(ms(1000)), Duration::ZERO);
    }

    #[test]
    fn with_all_the_time_there_is_no_rest() {
        let mut rest = Rest::default();
        rest.worked(ms(1000), 100);
        assert_eq!(rest.take(ms(1000)), Duration::ZERO);
    }

    #[test]
    fn a_batch_that_waited_is_no_reason_to_rest_for_long() {
        let mut rest = Rest::default();
        rest.worked(ms(60_000), 10);
        assert_eq!(rest.take(ms(1000)), ms(180));
    }

    #[test]
    fn a_backlog_that_lasts_is_worked_off_faster_and_faster() {
        let shares = [0, 59, 60, 120, 180, 240, 86_400].map(|s| share(10, Duration::from_secs(s)));
        assert_eq!(shares, [10, 10, 20, 40, 80, 100, 100]);
        assert_eq!(share(100, Duration::ZERO), 100);
    }

    /// What a batch of 10 ms, ended then, is worth as a rest.
    fn rest_at(pacing: &mut Pacing, now: Ticks) -> Duration {
        pacing.worked(now, ms(10), 25);
        pacing.settle()
    }

    #[test]
    fn a_backlog_lasts_from_the_first_visit_that_was_cut_short_to_one_that_was_not() {
        let mut pacing = Pacing::default();
        pacing.visited(ms(0), true);
        pacing.visited(ms(30_000), true);
        assert_eq!(rest_at(&mut pacing, ms(60_000)), ms(10));
        pacing.visited(ms(60_000), false);
        assert!(!pacing.has_backlog());
        pacing.visited(ms(90_000), true);
        assert_eq!(rest_at(&mut pacing, ms(120_000)), ms(30));
    }

    #[test]
    fn a_backlog_that_nobody_works_at_is_forgotten() {
        let mut pacing = Pacing::default();
        pacing.visited(ms(0), true);
        pacing.forget();
        assert!(!pacing.has_backlog());
        assert_eq!(rest_at(&mut pacing, ms(60_000)), ms(30));
    }
}
