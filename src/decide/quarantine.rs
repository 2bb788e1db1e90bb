//! Rows that could not be reaped, each with its next try.
//!
//! A row that fails alone in its batch is isolated: passes go round it from then on, and it is tried
//! again by its tid, ever more rarely. Nothing looks for it in between, so that thousands of such
//! rows cost the passes nothing.

use super::ahead::{Due, Tid};
use super::{ServerTime, Ticks, micros, schedule};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest that a row is left alone.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The most rows that are tried again, or written down, at once.
const ROUND: usize = 1000;

/// Tries that took `t` are followed by others `SHARE * t` later at the earliest.
const SHARE: u32 = 20;

/// The error of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    pub message: String,
    pub sqlstate: String,
}

/// A row in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// By what it was due.
    pub deadline: ServerTime,
    /// How often it has failed.
    pub tries: u32,
    pub next_try: ServerTime,
}

/// What is to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Rows that have failed.
    pub failed: BTreeMap<Tid, (Held, Why)>,
    /// Rows that are not held any more.
    pub released: BTreeSet<Tid>,
}

impl News {
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.released.is_empty()
    }
}

/// The rows of one table that one rule holds in quarantine.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    held: BTreeMap<Tid, Held>,
    /// The same rows in the order of their deadlines.
    order: BTreeSet<Due>,
    /// No row is tried again before this.
    earliest: ServerTime,
    /// Nor is any before this: tries that fail have their share of the time, and no more.
    next_round: Ticks,
    news: News,
}

impl Quarantine {
    /// As it was written down; of the rows that are `gone` that is out of date.
    pub fn of(held: BTreeMap<Tid, Held>, gone: BTreeSet<Tid>) -> Quarantine {
        let order = held.iter().map(|(&tid, held)| Due { deadline: held.deadline, tid }).collect();
        let news = News { released: gone, ..News::default() };
        Quarantine { held, order, news, earliest: ServerTime::MIN, next_round: Ticks::ZERO }
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether passes go round this row.
    pub fn holds(&self, row: &Due) -> bool {
        self.order.contains(row)
    }

    /// The first deadline of a row that is held, from `deadline` on.
    pub fn first_from(&self, deadline: ServerTime) -> Option<ServerTime> {
        let from = Due { deadline, tid: Tid::FIRST };
        self.order.range(from..).next().map(|due| due.deadline)
    }

    /// The rows to try again at `now`, [`ROUND`] at the most, those first that have waited longest.
    /// A next try further away than any ought to be was reckoned by a clock that was ahead.
    pub fn due(&mut self, now: ServerTime, ticks: Ticks) -> Vec<Due> {
        let ahead = now.saturating_add(micros(LONGEST_WAIT));
        if ticks < self.next_round || (now.saturating_add(1)..=ahead).contains(&self.earliest) {
            return vec![];
        }
        let waits = |held: &Held| (now.saturating_add(1)..=ahead).contains(&held.next_try);
        self.earliest =
            self.held.values().map(|held| held.next_try).min().unwrap_or(ServerTime::MAX);
        let mut due: Vec<_> = self.held.iter().filter(|(_, held)| !waits(held)).collect();
        due.sort_by_key(|(_, held)| held.next_try);
        due.truncate(ROUND);
        due.into_iter().map(|(&tid, held)| Due { deadline: held.deadline, tid }).collect()
    }

    /// Tries ended that took so long.
    pub fn round_done(&mut self, ended: Ticks, took: Duration) {
        self.next_round = ended + took.saturating_mul(SHARE);
    }

    /// All its rows, in the order of their deadlines.
    pub fn all(&self) -> Vec<Due> {
        self.order.iter().copied().collect()
    }

    /// The row has failed alone at `now`. It is left alone for `first`, then for twice as long each
    /// time that it fails again.
    pub fn isolate(&mut self, row: Due, why: Why, now: ServerTime, first: Duration) {
        let before = self.held.get(&row.tid).copied();
        if let Some(before) = before {
            self.order.remove(&Due { deadline: before.deadline, tid: row.tid });
        }
        // What lay there with another deadline was another row.
        let same = before.filter(|before| before.deadline == row.deadline);
        let tries = same.map_or(0, |before| before.tries).saturating_add(1);
        let wait = schedule::backoff(tries, first.min(LONGEST_WAIT), LONGEST_WAIT);
        let next_try = now.saturating_add(micros(wait));
        let held = Held { deadline: row.deadline, tries, next_try };
        self.held.insert(row.tid, held);
        self.order.insert(row);
        self.earliest = self.earliest.min(next_try);
        self.news.released.remove(&row.tid);
        self.news.failed.insert(row.tid, (held, why));
    }

    /// The rows did not fail this time: they are gone, or will be found as others are.
    pub fn release(&mut self, rows: &[Due]) {
        for row in rows {
            if self.order.remove(row) {
                self.held.remove(&row.tid);
                self.news.failed.remove(&row.tid);
                self.news.released.insert(row.tid);
            }
        }
    }

    /// What has changed since the last time: no more than is written down at once, the rest the next
    /// time.
    pub fn take_news(&mut self) -> News {
        let mut news = std::mem::take(&mut self.news);
        if let Some(&later) = news.failed.keys().nth(ROUND) {
            self.news.failed = news.failed.split_off(&later);
        }
        news
    }

    /// What was taken could not be written down, and is to be once more, unless newer.
    pub fn put_back(&mut self, old: News) {
        for (tid, failed) in old.failed {
            if !self.news.released.contains(&tid) {
                self.news.failed.entry(tid).or_insert(failed);
            }
        }
        let failed = &self.news.failed;
        let released = old.released.into_iter().filter(|tid| !failed.contains_key(tid));
        self.news.released.extend(released);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(5);
    const S: ServerTime = 1_000_000;

    fn row(deadline: ServerTime, offset: u16) -> Due {
        Due { deadline, tid: Tid { block: 0, offset } }
    }

    fn failed(quarantine: &mut Quarantine, row: Due, now: ServerTime) {
        quarantine.isolate(row, Why::default(), now, FIRST);
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_an_hour() {
        let (mut quarantine, row) = (Quarantine::default(), row(7, 1));
        let mut now = 0;
        for wait in [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
            failed(&mut quarantine, row, now * S);
            assert_eq!(quarantine.due((now + wait) * S - 1, Ticks::ZERO), vec![], "after {wait} s");
            now += wait;
            assert_eq!(quarantine.due(now * S, Ticks::ZERO), vec![row], "after {wait} s");
        }
        assert_eq!(quarantine.take_news().failed[&row.tid].0.tries, 12);
    }

    #[test]
    fn those_that_have_waited_longest_are_tried_first() {
        let mut quarantine = Quarantine::default();
        for (offset, at) in [(1, 3), (2, 1), (3, 2)] {
            failed(&mut quarantine, row(9, offset), at * S);
        }
        assert_eq!(quarantine.due(7 * S, Ticks::ZERO), vec![row(9, 2), row(9, 3)]);
        let all = [row(9, 2), row(9, 3), row(9, 1)];
        assert_eq!(quarantine.due(100 * S, Ticks::ZERO), all);
        for offset in 10..2000 {
            failed(&mut quarantine, row(9, offset), 0);
        }
        let due = quarantine.due(100 * S, Ticks::ZERO);
        assert_eq!((due.len(), due[0]), (ROUND, row(9, 10)));
    }

    #[test]
    fn tries_have_a_share_of_the_time_and_no_more() {
        let mut quarantine = Quarantine::default();
        failed(&mut quarantine, row(9, 1), 0);
        quarantine.round_done(Duration::from_secs(1), Duration::from_millis(100));
        assert_eq!(quarantine.due(9 * S, Duration::from_millis(2999)), vec![]);
        assert_eq!(quarantine.due(9 * S, Duration::from_secs(3)), vec![row(9, 1)]);
    }

    #[test]
    fn what_is_gone_is_to_be_written_off() {
        let held = Held { deadline: 7, tries: 3, next_try: 0 };
        let (here, gone) = (row(7, 1), row(7, 2));
        let rows = BTreeMap::from([(here.tid, held)]);
        let mut quarantine = Quarantine::of(rows, BTreeSet::from([gone.tid]));
        assert_eq!(quarantine.due(1, Ticks::ZERO), vec![here]);
        failed(&mut quarantine, here, 0);
        let news = quarantine.take_news();
        assert_eq!(news.released, BTreeSet::from([gone.tid]));
        assert_eq!(news.failed[&here.tid].0.tries, 4);
    }

    #[test]
    fn a_clock_set_back_does_not_hold_a_row_for_longer_than_an_hour() {
        let mut quarantine = Quarantine::default();
        failed(&mut quarantine, row(9, 1), 9000 * S);
        assert_eq!(quarantine.due(5500 * S, Ticks::ZERO), vec![]);
        assert_eq!(quarantine.due(5000 * S, Ticks::ZERO), vec![row(9, 1)]);
    }

    #[test]
    fn what_lies_elsewhere_or_is_due_at_another_time_is_another_row() {
        let mut quarantine = Quarantine::default();
        failed(&mut quarantine, row(7, 1), 0);
        assert!(quarantine.holds(&row(7, 1)));
        assert!(!quarantine.holds(&row(7, 2)) && !quarantine.holds(&row(8, 1)));
        failed(&mut quarantine, row(8, 1), 0);
        assert!(!quarantine.holds(&row(7, 1)) && quarantine.holds(&row(8, 1)));
        assert_eq!(quarantine.take_news().failed[&row(8, 1).tid].0.tries, 1);
        // A try of the one that is not there any more says nothing of the other.
        quarantine.release(&[row(7, 1)]);
        assert!(quarantine.holds(&row(8, 1)) && quarantine.take_news().is_empty());
    }

    #[test]
    fn passes_are_told_where_the_next_one_lies() {
        let mut quarantine = Quarantine::default();
        failed(&mut quarantine, row(7, 1), 0);
        failed(&mut quarantine, row(9, 2), 0);
        assert_eq!(quarantine.first_from(0), Some(7));
        assert_eq!(quarantine.first_from(7), Some(7));
        assert_eq!(quarantine.first_from(8), Some(9));
        quarantine.release(&[row(9, 2)]);
        assert_eq!(quarantine.first_from(8), None);
    }

    #[test]
    fn much_news_comes_in_portions() {
        let mut quarantine = Quarantine::default();
        for offset in 1..=ROUND as u16 + 1 {
            failed(&mut quarantine, row(7, offset), 0);
        }
        assert_eq!(quarantine.take_news().failed.len(), ROUND);
        assert_eq!(quarantine.take_news().failed.len(), 1);
        assert!(quarantine.take_news().is_empty());
    }

    #[test]
    fn news_that_could_not_be_written_come_again_unless_newer_ones_did() {
        let mut quarantine = Quarantine::default();
        for offset in 1..=4 {
            failed(&mut quarantine, row(7, offset), 0);
        }
        quarantine.release(&[row(7, 4)]);
        let old = quarantine.take_news();
        assert!(quarantine.take_news().is_empty());
        quarantine.release(&[row(7, 1)]);
        failed(&mut quarantine, row(7, 2), S);
        failed(&mut quarantine, row(7, 4), S);
        quarantine.put_back(old);
        let news = quarantine.take_news();
        let tries: Vec<_> =
            news.failed.iter().map(|(tid, new)| (tid.offset, new.0.tries)).collect();
        assert_eq!(tries, [(2, 2), (3, 1), (4, 1)]);
        assert_eq!(news.released, BTreeSet::from([row(7, 1).tid]));
    }
}
