//! The pace of the scan for rows without progress, which no index serves.

use super::{Ticks, schedule};
use std::time::Duration;

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

    const fn ms(n: u64) -> Ticks {
        Duration::from_millis(n)
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
