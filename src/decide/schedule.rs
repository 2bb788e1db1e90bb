//! When to do things again: backoff, pacing of scans that no index serves, and the wait.

use super::Ticks;
use std::time::Duration;

/// The longest a failing policy is left alone.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// A walk of everything may take this share of the time: after one that took `t`, the next
/// comes `WALK_SHARE * t` later at the earliest.
const WALK_SHARE: u32 = 100;

/// How long to leave something alone that has failed `failures` times in a row: one
/// `first` (the next cycle), then twice as long each time, up to `ceiling`.
pub fn backoff(failures: u32, first: Duration, ceiling: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(ceiling.max(first))
}

/// When the left edge of an index may be walked again, given when the last walk ended and how
/// long it took. Cheap walks are repeated every cycle, so that a row written with a deadline
/// long past is found at once; a walk over many dead entries is repeated rarely.
pub fn next_walk(ended: Ticks, took: Duration) -> Ticks {
    ended + took.saturating_mul(WALK_SHARE)
}

/// When the next step of such a walk may come: within its share, and not in turns so short that
/// the cycles around them cost more than they do.
pub fn next_step(ended: Ticks, took: Duration) -> Ticks {
    next_walk(ended, took).max(ended + Duration::from_millis(100))
}

/// When the next round of a scan may begin: `again` after the last one began, but not sooner than the
/// share of time allowed to walks.
pub fn next_round(began: Ticks, ended: Ticks, read: Duration, again: Duration) -> Ticks {
    (began + again).max(next_walk(ended, read))
}

/// How long to wait now, given when the cycle began and the earliest thing due.
pub fn wait(now: Ticks, cycle_began: Ticks, interval: Duration, due: Option<Ticks>) -> Duration {
    let next = cycle_began + interval;
    let next = due.map_or(next, |due| due.min(next));
    next.saturating_sub(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_first_failure_is_tried_again_in_the_next_cycle() {
        assert_eq!(backoff(1, s(5), LONGEST_BACKOFF), s(5));
        assert_eq!(backoff(2, s(5), LONGEST_BACKOFF), s(10));
        assert_eq!(backoff(4, s(5), LONGEST_BACKOFF), s(40));
        assert_eq!(backoff(5, s(5), LONGEST_BACKOFF), s(60));
        assert_eq!(backoff(u32::MAX, s(5), LONGEST_BACKOFF), s(60));
    }

    #[test]
    fn a_backoff_is_never_shorter_than_the_cycle() {
        assert_eq!(backoff(1, s(600), LONGEST_BACKOFF), s(600));
        assert_eq!(backoff(9, s(600), LONGEST_BACKOFF), s(600));
    }

    #[test]
    fn a_cheap_walk_is_due_again_by_the_next_cycle_and_a_dear_one_is_not() {
        assert!(next_walk(s(100), Duration::from_millis(40)) < s(105));
        assert_eq!(next_walk(s(100), Duration::from_millis(400)), s(140));
    }

    #[test]
    fn a_round_comes_when_it_should_but_stays_within_its_share() {
        assert_eq!(next_round(s(0), s(1), Duration::ZERO, s(10)), s(10));
        assert_eq!(next_round(s(0), s(1), s(1), s(10)), s(101));
    }

    proptest! {
        #[test]
        fn the_wait_never_exceeds_the_interval(
            began in 0u64..1000, took in 0u64..1000, interval in 1u64..1000,
            due in proptest::option::of(0u64..3000)
        ) {
            let wait = wait(s(began + took), s(began), s(interval), due.map(s));
            prop_assert!(wait <= s(interval));
        }
    }
}
