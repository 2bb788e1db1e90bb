//! When each table is visited next.

use super::{Ticks, schedule};
use std::time::Duration;

/// The shortest rest between a visit and one that a deadline calls for. Deadlines that come thick
/// are met together.
const REST: Duration = Duration::from_millis(10);

/// How many times as long as a visit the rest after it is, where deadlines come thick.
const REST_SHARE: u32 = 4;

/// Past a deadline by this much it is surely over: clocks are read in whole milliseconds.
const PAST: Duration = Duration::from_millis(1);

/// How long all tables that have a backlog may take together, before the others have their turn.
const ROUND: Duration = Duration::from_millis(250);

/// The shortest visit to a table that has a backlog: below, the cycle around it costs more.
const SHORTEST: Duration = Duration::from_millis(20);

/// How long one table is visited at most, in a cycle that began so long ago, where so many `backlogs`
/// are known of, or may turn up: so long that a deadline elsewhere waits for a round and little more.
/// Those that turn up unexpected in a round make do with what is left of it.
pub fn slice(backlogs: usize, elapsed: Duration) -> Duration {
    let share = ROUND / u32::try_from(backlogs.max(1)).unwrap_or(u32::MAX);
    share.min(ROUND.saturating_sub(elapsed)).max(SHORTEST)
}

/// What a probe of an index takes at most.
const CHEAP: Duration = Duration::from_millis(5);

/// When a table is asked what its next deadline is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probes {
    /// Not before this.
    pub next: Ticks,
    /// How long the last one took.
    last: Duration,
}

impl Probes {
    /// One that ended then `took` so long. Where no index serves, it reads the whole table, and may
    /// not be had after every visit. Whatever else held up a single one says nothing of the table.
    pub fn done(&mut self, ended: Ticks, took: Duration) {
        let costs = took.min(std::mem::replace(&mut self.last, took));
        self.next = if costs < CHEAP { ended } else { schedule::next_walk(ended, costs) };
    }
}

/// What a visit was like.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// When the cycle began, in which others may have had their turn before.
    pub cycle_began: Ticks,
    pub began: Ticks,
    pub ended: Ticks,
    /// There is more to do at once.
    pub cut_short: bool,
    /// The longest until the next one.
    pub interval: Duration,
    /// Whether the policy has an interval of its own, which deadlines do not shorten.
    pub own_interval: bool,
    /// How long after the end of the visit the next row is due.
    pub due_in: Option<Duration>,
    /// When the scan for rows without progress goes on.
    pub scan_due: Option<Ticks>,
    /// When the policy's rate allows more.
    pub free_at: Ticks,
}

impl Visit {
    /// When the next one is due.
    pub fn next(&self) -> Ticks {
        let mut next = self.cycle_began + self.interval.max(REST);
        if let Some(due_in) = self.due_in.filter(|_| !self.own_interval) {
            let rest = REST.max((self.ended.saturating_sub(self.began)) * REST_SHARE);
            next = next.min(self.ended.saturating_add(rest.max(due_in.saturating_add(PAST))));
        }
        if let Some(scan_due) = self.scan_due {
            next = next.min(scan_due);
        }
        if self.cut_short {
            next = self.ended;
        }
        next.max(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const IDLE: Visit = Visit {
        cycle_began: ms(1000),
        began: ms(1000),
        ended: ms(1002),
        cut_short: false,
        interval: ms(5000),
        own_interval: false,
        due_in: None,
        scan_due: None,
        free_at: Duration::ZERO,
    };

    #[test]
    fn those_with_a_backlog_share_a_round() {
        assert_eq!(slice(0, ms(0)), ROUND);
        assert_eq!(slice(1, ms(0)), ROUND);
        assert_eq!(slice(10, ms(0)), ms(25));
        assert_eq!(slice(10, ms(200)), ms(25));
        assert_eq!(slice(1_000_000, ms(0)), SHORTEST);
    }

    #[test]
    fn backlogs_that_nobody_knew_of_make_do_with_one_round_too() {
        let mut elapsed = ms(0);
        for known in 0..5 {
            elapsed += slice(known, elapsed);
        }
        assert_eq!(elapsed, ROUND + 4 * SHORTEST);
    }

    #[test]
    fn an_idle_table_is_visited_each_interval() {
        assert_eq!(IDLE.next(), ms(6000));
    }

    #[test]
    fn a_deadline_is_met_when_it_has_passed() {
        assert_eq!(Visit { due_in: Some(ms(300)), ..IDLE }.next(), ms(1303));
        assert_eq!(Visit { due_in: Some(ms(60_000)), ..IDLE }.next(), ms(6000));
        assert_eq!(Visit { due_in: Some(Duration::MAX), ..IDLE }.next(), ms(6000));
    }

    #[test]
    fn deadlines_that_come_thick_are_met_together() {
        assert_eq!(Visit { due_in: Some(ms(0)), ..IDLE }.next(), ms(1012));
        let dear = Visit { ended: ms(1100), due_in: Some(ms(0)), ..IDLE };
        assert_eq!(dear.next(), ms(1500), "a fifth of the time at most");
    }

    #[test]
    fn a_deadline_does_not_wait_because_others_had_their_turn_before() {
        let late = Visit { began: ms(3000), ended: ms(3002), due_in: Some(ms(100)), ..IDLE };
        assert_eq!(late.next(), ms(3103));
        assert_eq!(Visit { due_in: None, ..late }.next(), ms(6000));
    }

    #[test]
    fn an_interval_of_its_own_is_not_shortened() {
        let own = Visit { own_interval: true, interval: ms(60_000), due_in: Some(ms(5)), ..IDLE };
        assert_eq!(own.next(), ms(61_000));
    }

    #[test]
    fn what_was_cut_short_goes_on_at_once_unless_its_rate_forbids() {
        let cut = Visit { cut_short: true, ..IDLE };
        assert_eq!(cut.next(), ms(1002));
        assert_eq!(Visit { free_at: ms(1700), ..cut }.next(), ms(1700));
    }

    #[test]
    fn a_dear_probe_is_a_small_share_of_the_time_and_a_cheap_one_is_free() {
        let mut probes = Probes::default();
        probes.done(ms(1000), ms(1));
        assert_eq!(probes.next, ms(1000));
        probes.done(ms(1000), ms(50));
        assert_eq!(probes.next, ms(1000), "it may have been held up");
        probes.done(ms(2000), ms(60));
        assert_eq!(probes.next, ms(7000));
        probes.done(ms(7000), ms(1));
        assert_eq!(probes.next, ms(7000));
    }

    #[test]
    fn the_scan_for_rows_without_progress_has_times_of_its_own() {
        assert_eq!(Visit { scan_due: Some(ms(2000)), ..IDLE }.next(), ms(2000));
    }
}
