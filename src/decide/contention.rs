//! Whether the batches of a table wait a moment for locked rows, or pass over them.
//!
//! A plain `DELETE` cannot pass over a locked row: it waits, and when that takes too long the whole
//! batch is lost. One that passes over locks never waits, and takes nearly twice as long. So batches
//! wait as long as that goes well, and for a while after it did not they pass over.

/// How many batches pass over locks after one that met a lock: the wait, and the work that was
/// lost, cost about what so many gain by not looking for locks.
const AT_FIRST: u32 = 32;

/// The longest row of batches that pass over locks, once each that waits meets one.
const AT_MOST: u32 = 1024;

/// What the batches of one table have met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    /// How many batches passed over locks the last time, and have not been made up for.
    last: u32,
    /// How many still do.
    left: u32,
}

impl Contention {
    /// Whether the next batch waits for locked rows.
    pub fn waits(&self) -> bool {
        self.left == 0
    }

    /// A batch that waited met a lock, and was rolled back. It is repeated, passing over locks, and
    /// those after it do the same: twice as many as the last time.
    pub fn met_a_lock(&mut self) {
        self.last = self.last.saturating_mul(2).clamp(AT_FIRST, AT_MOST);
        self.left = self.last;
    }

    /// A batch went through.
    pub fn went_through(&mut self) {
        match self.left {
            0 => self.last = self.last.saturating_sub(1),
            _ => self.left -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_it_waits(contention: &mut Contention) -> u32 {
        let mut batches = 0;
        while !contention.waits() {
            contention.went_through();
            batches += 1;
        }
        batches
    }

    #[test]
    fn a_lock_has_the_batches_after_it_pass_over_locks_for_a_while() {
        let mut contention = Contention::default();
        assert!(contention.waits());
        contention.met_a_lock();
        assert_eq!(until_it_waits(&mut contention), 32);
    }

    #[test]
    fn a_busy_table_is_tried_ever_more_rarely_but_is_tried() {
        let mut contention = Contention::default();
        let mut row = Vec::new();
        for _ in 0..8 {
            contention.met_a_lock();
            row.push(until_it_waits(&mut contention));
        }
        assert_eq!(row, [32, 64, 128, 256, 512, 1024, 1024, 1024]);
    }

    #[test]
    fn what_goes_through_makes_up_for_what_did_not() {
        let mut contention = Contention::default();
        contention.met_a_lock();
        contention.met_a_lock();
        until_it_waits(&mut contention);
        for _ in 0..64 {
            contention.went_through();
        }
        assert_eq!(contention, Contention::default());
    }
}
