//! How one pass moves through the due rows of a table, and what the next one may skip.
//!
//! Rows are read in the order of (deadline, tid), so that any number of rows with one and the
//! same deadline has an order too, and a pass that was cut short goes on exactly where it was.
//! Entries of rows already deleted stay in the index until they are vacuumed, for hours while an
//! old snapshot is held, so between passes a low-water mark is kept below which nothing is left.

use super::{ServerTime, Ticks, schedule};
use std::time::Duration;

/// Where a row version lies: block and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    pub block: u32,
    pub offset: u16,
}

/// A due row, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub deadline: ServerTime,
    pub tid: Tid,
}

/// Before every row.
const START: Due = Due { deadline: ServerTime::MIN, tid: Tid { block: 0, offset: 0 } };

/// A pass under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Rows with a deadline before this are due. Fixed when the pass begins, so that it ends.
    pub cutoff: ServerTime,
    /// Read what comes after this.
    pub after: Due,
    /// Whether it began at the left edge of the index, and has not read from there yet.
    walk: bool,
    /// The first deadline that may have rows left: they were locked, or held back by a trigger.
    left_over: Option<ServerTime>,
    /// Rows logged one by one so far.
    pub logged: usize,
    /// Rows reaped without a line of their own.
    pub unlogged: u64,
}

impl Pass {
    /// A pass over rows that are found in another way than by their deadline.
    pub fn unordered(cutoff: ServerTime) -> Self {
        Pass { cutoff, after: START, walk: false, left_over: None, logged: 0, unlogged: 0 }
    }

    /// Rows reaped so far.
    pub fn reaped(&self) -> u64 {
        self.unlogged + self.logged as u64
    }

    /// A batch of `tried` rows, the first of them `first` and the last `last`, reaped `reaped`.
    pub fn batch_done(&mut self, first: Due, last: Due, tried: usize, reaped: u64) {
        if reaped < tried as u64 {
            self.left_over.get_or_insert(first.deadline);
        }
        self.after = last;
    }
}

/// What the passes of one table remember between them.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pass: Option<Pass>,
    low_water: Option<ServerTime>,
    next_walk: Ticks,
    /// How long the last walk from the left edge took.
    edge_took: Duration,
}

/// What a probe of an index takes at most.
const CHEAP: Duration = Duration::from_millis(5);

impl Progress {
    /// Goes on with the pass that was cut short, or begins one at `now`. It begins at the
    /// low-water mark, or at the left edge when a walk from there is due.
    pub fn resume(&mut self, now: ServerTime, ticks: Ticks) -> Pass {
        if let Some(pass) = self.pass.take() {
            return pass;
        }
        let low_water = self.low_water.filter(|_| ticks < self.next_walk);
        let after = match low_water {
            // The clock may have been set back behind the mark.
            Some(mark) => Due { deadline: mark.min(now), ..START },
            None => START,
        };
        let walk = low_water.is_none();
        Pass { after, walk, ..Pass::unordered(now) }
    }

    /// The first read of a pass ended after it `took` so long, waits for locks left out: what it
    /// cost decides when the left edge is walked again.
    pub fn first_read_done(&mut self, pass: &mut Pass, ended: Ticks, took: Duration) {
        if std::mem::take(&mut pass.walk) {
            self.edge_took = took;
            self.next_walk = schedule::next_walk(ended, took);
        }
    }

    /// Whether the last read from the left edge cost next to nothing, as with an index.
    pub fn probes_are_cheap(&self) -> bool {
        self.edge_took < CHEAP
    }

    /// The pass was cut short; the next one goes on with it.
    pub fn suspend(&mut self, pass: Pass) {
        self.pass = Some(pass);
    }

    /// The pass came to its end: nothing is left below the mark.
    pub fn finish(&mut self, pass: &Pass) {
        self.low_water = Some(pass.left_over.map_or(pass.cutoff, |left| left.min(pass.cutoff)));
    }
}

/// The slow scan for rows without progress, which no index serves: some blocks at a time.
#[derive(Clone, Debug, Default)]
pub struct StuckScan {
    pub next_block: u32,
    began: Ticks,
    /// When the next step is due.
    pub due: Ticks,
}

/// How many blocks one step of the scan reads.
pub const STUCK_STEP: u32 = 1024;

impl StuckScan {
    /// A step over [`STUCK_STEP`] blocks of a table of `blocks` has been taken. True when it was
    /// the last of its round.
    pub fn step_done(&mut self, blocks: u32, began: Ticks, ended: Ticks, stuck: Duration) -> bool {
        let took = ended.saturating_sub(began);
        if self.next_block == 0 {
            self.began = began;
        }
        self.next_block = self.next_block.saturating_add(STUCK_STEP);
        let last = self.next_block >= blocks;
        if last {
            self.next_block = 0;
            self.due = schedule::next_stuck_scan(self.began, ended, took, stuck);
        } else {
            self.due = schedule::next_step(ended, took);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(deadline: ServerTime, offset: u16) -> Due {
        Due { deadline, tid: Tid { block: 0, offset } }
    }

    const fn ms(n: u64) -> Ticks {
        Duration::from_millis(n)
    }

    /// A pass whose first read took `took`, over and done.
    fn passed(progress: &mut Progress, now: ServerTime, at: Ticks, took: Duration) -> Pass {
        let mut pass = progress.resume(now, at);
        progress.first_read_done(&mut pass, at + took, took);
        progress.finish(&pass);
        pass
    }

    #[test]
    fn after_a_dear_walk_passes_begin_at_the_low_water_mark() {
        let mut progress = Progress::default();
        assert_eq!(passed(&mut progress, 100, ms(0), ms(50)).after, START);
        let mut next = progress.resume(200, ms(100));
        assert_eq!(next.after, due(100, 0));
        progress.first_read_done(&mut next, ms(101), ms(1));
        progress.finish(&next);
        assert_eq!(progress.resume(300, ms(5049)).after, due(200, 0));
    }

    #[test]
    fn the_left_edge_is_walked_again_once_its_cost_is_a_small_share() {
        let mut progress = Progress::default();
        passed(&mut progress, 100, ms(0), ms(50));
        assert_eq!(progress.resume(200, ms(5050)).after, START);
    }

    #[test]
    fn the_mark_stays_below_what_was_left_over() {
        let mut progress = Progress::default();
        let mut pass = progress.resume(100, ms(0));
        progress.first_read_done(&mut pass, ms(50), ms(50));
        pass.batch_done(due(10, 1), due(20, 2), 2, 2);
        pass.batch_done(due(30, 1), due(40, 2), 2, 1);
        pass.batch_done(due(50, 1), due(60, 2), 2, 0);
        assert_eq!(pass.after, due(60, 2));
        progress.finish(&pass);
        assert_eq!(progress.resume(200, ms(60)).after, due(30, 0));
    }

    #[test]
    fn a_suspended_pass_keeps_its_cutoff_and_place() {
        let mut progress = Progress::default();
        let mut pass = progress.resume(100, ms(0));
        pass.batch_done(due(10, 1), due(10, 9), 9, 9);
        progress.suspend(pass.clone());
        assert_eq!(progress.resume(999, ms(1)), pass);
    }

    #[test]
    fn a_clock_set_back_does_not_leave_a_gap() {
        let mut progress = Progress::default();
        passed(&mut progress, 1000, ms(0), ms(50));
        assert_eq!(progress.resume(500, ms(60)).after, due(500, 0));
    }

    #[test]
    fn a_stuck_scan_goes_round_in_steps_and_rests_between_rounds() {
        let mut scan = StuckScan::default();
        let stuck = ms(40_000);
        assert!(!scan.step_done(2000, ms(0), ms(2), stuck));
        assert_eq!((scan.next_block, scan.due), (1024, ms(202)));
        assert!(scan.step_done(2000, ms(202), ms(203), stuck));
        assert_eq!((scan.next_block, scan.due), (0, ms(10_000)));
        assert!(scan.step_done(0, ms(10_000), ms(10_000), stuck), "an empty table is one step");
    }
}
