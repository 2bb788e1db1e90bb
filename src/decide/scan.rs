//! The pace of a scan by blocks: for rows that no index leads to.

use super::progress::Pass;
use super::{ServerTime, Ticks, schedule};
use std::time::Duration;

/// How many blocks one step of a scan reads.
pub const STEP: u32 = 1024;

/// A slow scan of a whole table, some blocks at a time, round and round.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    pub next_block: u32,
    /// The step under way, where it was cut short: what a trigger keeps of it is not tried again, and
    /// what comes after is.
    pub pass: Option<Pass>,
    /// How long it took to read its blocks.
    pub read: Duration,
    began: Ticks,
    /// When the next step is due.
    pub due: Ticks,
    /// There is more to a round than one step.
    pub has_steps: bool,
}

impl Scan {
    /// The step that was cut short, for a pass at `cutoff`. Unless the clock was set back meanwhile: its
    /// cutoff was read from one that was ahead.
    pub fn resume(&mut self, cutoff: ServerTime) -> Option<Pass> {
        self.pass.take().filter(|pass| pass.cutoff <= cutoff)
    }

    /// The next step is taken at once, and with other eyes. What was read is not lost sight of.
    pub fn hurry(&mut self) {
        self.pass = None;
        self.due = Ticks::ZERO;
    }

    /// A step over [`STEP`] blocks of a table of `blocks`, which began then, has been taken. The next
    /// round begins `again` after this one at the earliest. True when it was the last of its round.
    pub fn step_done(&mut self, blocks: u32, began: Ticks, ended: Ticks, again: Duration) -> bool {
        let read = self.read;
        if self.next_block == 0 {
            self.began = began;
        }
        self.next_block = self.next_block.saturating_add(STEP);
        self.has_steps = blocks > STEP;
        let last = self.next_block >= blocks;
        if last {
            self.next_block = 0;
            self.due = schedule::next_round(self.began, ended, read, again);
        } else {
            self.due = schedule::next_step(ended, read);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Ticks {
        Duration::from_millis(n)
    }

    #[test]
    fn a_scan_goes_round_in_steps_and_rests_between_rounds() {
        let mut scan = Scan { read: ms(2), ..Scan::default() };
        assert!(!scan.step_done(2000, ms(0), ms(2), ms(10_000)));
        assert_eq!((scan.next_block, scan.due, scan.has_steps), (1024, ms(202), true));
        assert!(scan.step_done(2000, ms(202), ms(203), ms(10_000)));
        assert_eq!((scan.next_block, scan.due), (0, ms(10_000)));
        assert!(scan.step_done(0, ms(10_000), ms(10_000), ms(10_000)));
        assert!(!scan.has_steps, "an empty table is one step");
    }

    #[test]
    fn what_is_reaped_meanwhile_does_not_count_as_reading() {
        let mut scan = Scan { read: ms(10), ..Scan::default() };
        scan.step_done(5000, ms(0), ms(1000), ms(0));
        assert_eq!(scan.due, ms(2000));
    }

    #[test]
    fn a_step_that_was_cut_short_goes_on_where_it_was_unless_the_clock_was_set_back() {
        let mut scan = Scan { pass: Some(Pass::unordered(100)), ..Scan::default() };
        assert_eq!(scan.resume(200), Some(Pass::unordered(100)));
        assert_eq!(scan.resume(200), None);
        scan.pass = Some(Pass::unordered(100));
        assert_eq!(scan.resume(50), None);
    }

    #[test]
    fn a_scan_in_a_hurry_goes_on_where_it_was() {
        let mut scan = Scan { read: ms(10), ..Scan::default() };
        scan.step_done(5000, ms(0), ms(1000), ms(0));
        scan.pass = Some(Pass::unordered(100));
        scan.hurry();
        assert_eq!((scan.next_block, scan.due, scan.pass), (1024, ms(0), None));
    }
}
