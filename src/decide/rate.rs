//! How fast rows of one policy are reaped: no faster than its `rate_limit`.
//!
//! Each batch is paid for after it: the next one waits until the rows of the last would have come
//! at the rate allowed. So the wait lies between transactions, and no second has more rows than
//! the rate and one batch.

use super::Ticks;
use std::time::Duration;

/// What one policy owes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Rows a second; none: as many as there are.
    limit: Option<u32>,
    /// When the next batch may begin.
    pub free_at: Ticks,
}

impl Rate {
    /// The limit is this from now on.
    pub fn limit(&mut self, limit: Option<u32>) {
        if self.limit != limit {
            *self = Rate { limit, ..Rate::default() };
        }
    }

    /// The most rows of a batch: what comes in half a second, so that the wait after it is short.
    pub fn batch(&self, size: usize) -> usize {
        self.limit.map_or(size, |limit| size.min((limit / 2).max(1) as usize))
    }

    /// A batch of `rows` has been reaped.
    pub fn reaped(&mut self, rows: u64, now: Ticks) {
        if let Some(limit) = self.limit {
            let cost = Duration::from_secs_f64(rows as f64 / f64::from(limit.max(1)));
            self.free_at = self.free_at.max(now).saturating_add(cost);
        }
    }

    /// Whether the next batch must wait.
    pub fn must_wait(&self, now: Ticks) -> bool {
        now < self.free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paced(limit: u32) -> Rate {
        let mut rate = Rate::default();
        rate.limit(Some(limit));
        rate
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut rate = Rate::default();
        rate.reaped(1_000_000, Duration::ZERO);
        assert!(!rate.must_wait(Duration::ZERO));
        assert_eq!(rate.batch(1000), 1000);
    }

    #[test]
    fn rows_are_paid_for_with_time() {
        let mut rate = paced(100);
        assert_eq!((rate.batch(1000), rate.batch(10), paced(1).batch(1000)), (50, 10, 1));
        rate.reaped(50, Duration::from_secs(10));
        assert!(rate.must_wait(Duration::from_millis(10_499)));
        assert!(!rate.must_wait(Duration::from_millis(10_500)));
    }

    #[test]
    fn another_limit_begins_with_no_debt() {
        let mut rate = paced(1);
        rate.reaped(1000, Duration::ZERO);
        rate.limit(Some(1));
        assert!(rate.must_wait(Duration::from_secs(999)), "the same limit is no pardon");
        rate.limit(Some(10));
        assert!(!rate.must_wait(Duration::ZERO));
    }

    proptest! {
        /// Whoever asks before each batch never gets more than the limit and one batch in any
        /// stretch of time.
        #[test]
        fn no_stretch_of_time_has_more_than_its_share(
            limit in 1u32..5_000,
            asks in proptest::collection::vec((0u64..400, 1usize..2_000), 1..200),
        ) {
            let mut rate = paced(limit);
            let mut now = Duration::ZERO;
            let mut done: Vec<(Duration, u64)> = vec![];
            for (wait, rows) in asks {
                now += Duration::from_millis(wait);
                if !rate.must_wait(now) {
                    let rows = rate.batch(rows) as u64;
                    rate.reaped(rows, now);
                    done.push((now, rows));
                }
            }
            for (first, (start, _)) in done.iter().enumerate() {
                let mut sum = 0;
                for (at, rows) in &done[first..] {
                    sum += rows;
                    let allowed = f64::from(limit) * (*at - *start).as_secs_f64();
                    let burst = f64::from((limit / 2).max(1));
                    prop_assert!(sum as f64 <= allowed + burst + 1.0);
                }
            }
        }
    }
}
