//! How one pass moves through the due rows of a table, and what the next one may skip.
//!
//! A pass goes through deadlines in their order, and through the rows of one deadline in the order
//! of their tids, so that a pass that was cut short goes on exactly where it was. Entries of rows
//! already deleted stay in the index until they are vacuumed, for hours while an old snapshot is
//! held; so within a pass no entry is walked twice, and between passes a low-water mark is kept
//! below which nothing is left.

use super::ahead::{Ahead, Due, Tid};
use super::{ServerTime, Ticks, schedule};
use std::time::Duration;

/// How far a pass has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It goes on with the first row from this deadline on, wherever that is.
    From(ServerTime),
    /// There was a row with this deadline, and it is the next.
    At(ServerTime),
    /// The rows of this deadline were tried up to this tid.
    Within(Due),
    /// All rows of this deadline were tried.
    Past(ServerTime),
}

impl Place {
    /// What rows that come after it come after, in the order of (deadline, tid).
    pub fn after(self) -> Due {
        match self {
            Place::From(deadline) | Place::At(deadline) => Due { deadline, tid: Tid::FIRST },
            Place::Within(due) => due,
            Place::Past(deadline) => Due { deadline, tid: Tid::LAST },
        }
    }
}

/// A pass under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Rows with a deadline before this are due. Fixed when the pass begins, so that it ends.
    pub cutoff: ServerTime,
    pub place: Place,
    pub ahead: Option<Ahead>,
    /// Whether its batches may wait a moment for locked rows.
    pub waits: bool,
    /// Whether it began at the left edge of the index, and has not read from there yet.
    walk: bool,
    /// Whether it began there.
    from_edge: bool,
    /// How long its turns took, up to now.
    spent: Duration,
    /// The first deadline that may have rows left: they were locked, or held back by a trigger.
    left_over: Option<ServerTime>,
    /// Rows logged one by one so far.
    pub logged: usize,
    /// Rows reaped without a line of their own.
    pub unlogged: u64,
    /// Rows told of one by one that went into quarantine.
    pub told: usize,
}

impl Pass {
    fn new(cutoff: ServerTime, place: Place) -> Self {
        Pass {
            cutoff,
            place,
            ahead: None,
            waits: true,
            walk: false,
            from_edge: false,
            spent: Duration::ZERO,
            left_over: None,
            logged: 0,
            unlogged: 0,
            told: 0,
        }
    }

    /// A pass over rows that are found in another way than by their deadline. They may be live
    /// barriers, of which decrements hold some locked: none is waited for.
    pub fn unordered(cutoff: ServerTime) -> Self {
        Pass { waits: false, ..Pass::new(cutoff, Place::From(ServerTime::MIN)) }
    }

    /// Rows reaped so far.
    pub fn reaped(&self) -> u64 {
        self.unlogged + self.logged as u64
    }

    /// The next `tried` of the rows that were read ahead were tried, and `reaped` of them reaped.
    pub fn tried(&mut self, tried: usize, reaped: u64) {
        let Some(ahead) = &mut self.ahead else { return };
        let batch = ahead.take(tried);
        let (Some(&first), Some(&last)) = (batch.first(), batch.last()) else { return };
        self.place = Place::Within(last);
        if reaped < tried as u64 {
            self.left(first.deadline);
        }
    }

    /// The next of the rows that were read ahead is in quarantine now, and is not left.
    pub fn isolated(&mut self) {
        self.tried(1, 1);
    }

    /// Rows with this deadline may be left.
    pub fn left(&mut self, deadline: ServerTime) {
        self.left_over = Some(self.left_over.map_or(deadline, |left| left.min(deadline)));
    }
}

/// What the passes of one table remember between them.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pass: Option<Pass>,
    low_water: Option<ServerTime>,
    next_walk: Ticks,
}

impl Progress {
    /// Goes on with the pass that was cut short, or begins one at `now`. It begins at the
    /// low-water mark, or at the left edge when a walk from there is due.
    pub fn resume(&mut self, now: ServerTime, ticks: Ticks) -> Pass {
        // Unless the clock was set back meanwhile: its cutoff was read from one that was ahead.
        if let Some(pass) = self.pass.take().filter(|pass| pass.cutoff <= now) {
            return pass;
        }
        let low_water = self.low_water.filter(|_| ticks < self.next_walk);
        // The clock may have been set back behind the mark.
        let from = low_water.map_or(ServerTime::MIN, |mark| mark.min(now));
        let edge = low_water.is_none();
        Pass { walk: edge, from_edge: edge, ..Pass::new(now, Place::From(from)) }
    }

    /// The first read of a pass ended after it `took` so long, waits for locks left out: what it
    /// cost decides when the left edge is walked again.
    pub fn first_read_done(&mut self, pass: &mut Pass, ended: Ticks, took: Duration) {
        if std::mem::take(&mut pass.walk) {
            self.next_walk = schedule::next_walk(ended, took);
        }
    }

    /// A turn of the pass ended that `took` so long over rows that stay: a filter leaves them out, or
    /// they are in quarantine. They are walked over each time, so a walk from the left edge costs more
    /// than its first read.
    pub fn walked_over(&mut self, pass: &mut Pass, ended: Ticks, took: Duration) {
        pass.spent += took;
        if pass.from_edge {
            self.next_walk = self.next_walk.max(schedule::next_walk(ended, pass.spent));
        }
    }

    /// The pass was cut short; the next one goes on with it.
    pub fn suspend(&mut self, pass: Pass) {
        self.pass = Some(pass);
    }

    /// The pass failed where it stood: what it could not have is there still, and no later pass may
    /// take its absence for success.
    pub fn fail(&mut self, pass: &Pass) {
        let stands = pass.place.after().deadline;
        let left = pass.left_over.map_or(stands, |left| left.min(stands));
        self.low_water = self.low_water.map(|mark| mark.min(left));
    }

    /// Something may be left below the mark: the next pass begins at the left edge. One that was cut
    /// short is gone on with first, since it knows what it has reaped.
    pub fn doubt(&mut self) {
        match &mut self.pass {
            Some(pass) => pass.left(ServerTime::MIN),
            None => self.low_water = None,
        }
    }

    /// The pass came to its end: nothing is left below the mark.
    pub fn finish(&mut self, pass: &Pass) {
        self.low_water = Some(pass.left_over.map_or(pass.cutoff, |left| left.min(pass.cutoff)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::ahead::Then;
    use super::*;

    fn due(deadline: ServerTime, offset: u16) -> Due {
        Due { deadline, tid: Tid { block: 0, offset } }
    }

    const START: Place = Place::From(ServerTime::MIN);

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
        assert_eq!(passed(&mut progress, 100, ms(0), ms(50)).place, START);
        let mut next = progress.resume(200, ms(100));
        assert_eq!(next.place, Place::From(100));
        progress.first_read_done(&mut next, ms(101), ms(1));
        progress.finish(&next);
        assert_eq!(progress.resume(300, ms(5049)).place, Place::From(200));
    }

    #[test]
    fn the_left_edge_is_walked_again_once_its_cost_is_a_small_share() {
        let mut progress = Progress::default();
        passed(&mut progress, 100, ms(0), ms(50));
        assert_eq!(progress.resume(200, ms(5050)).place, START);
    }

    #[test]
    fn the_mark_stays_below_what_was_left_over() {
        let mut progress = Progress::default();
        let mut pass = progress.resume(100, ms(0));
        progress.first_read_done(&mut pass, ms(50), ms(50));
        let rows = (1..=6).map(|n| due(10 * n, n as u16)).collect();
        pass.ahead = Some(Ahead::new(rows, Then::End));
        pass.tried(2, 2);
        pass.tried(2, 1);
        pass.tried(2, 0);
        assert_eq!(pass.place, Place::Within(due(60, 6)));
        progress.finish(&pass);
        assert_eq!(progress.resume(200, ms(60)).place, Place::From(30));
    }

    #[test]
    fn a_pass_that_failed_below_the_mark_takes_it_back_there() {
        let mut progress = Progress::default();
        passed(&mut progress, 100, ms(0), ms(50));
        let mut walk = progress.resume(200, ms(5050));
        progress.first_read_done(&mut walk, ms(5100), ms(50));
        walk.place = Place::At(30);
        progress.fail(&walk);
        assert_eq!(progress.resume(300, ms(5200)).place, Place::From(30));
    }

    #[test]
    fn in_doubt_the_next_pass_begins_at_the_left_edge() {
        let mut progress = Progress::default();
        passed(&mut progress, 100, ms(0), ms(50));
        progress.doubt();
        assert_eq!(progress.resume(200, ms(60)).place, START);

        passed(&mut progress, 100, ms(0), ms(50));
        let mut pass = progress.resume(200, ms(60));
        pass.unlogged = 7;
        progress.suspend(pass);
        progress.doubt();
        let pass = progress.resume(300, ms(70));
        assert_eq!((pass.cutoff, pass.unlogged), (200, 7));
        progress.finish(&pass);
        assert_eq!(progress.resume(300, ms(80)).place, START);
    }

    #[test]
    fn a_suspended_pass_keeps_its_cutoff_its_place_and_what_it_has_read() {
        let mut progress = Progress::default();
        let mut pass = progress.resume(100, ms(0));
        pass.ahead = Some(Ahead::new(vec![due(10, 1), due(10, 2), due(10, 3)], Then::Past(10)));
        pass.tried(2, 2);
        assert_eq!(pass.ahead.as_ref().map(|ahead| ahead.next(9)), Some(&[due(10, 3)][..]));
        progress.suspend(pass.clone());
        assert_eq!(progress.resume(999, ms(1)), pass);
    }

    #[test]
    fn what_a_filter_leaves_out_is_walked_over_again_as_rarely_as_that_is_dear() {
        let mut progress = Progress::default();
        let mut pass = progress.resume(100, ms(0));
        progress.first_read_done(&mut pass, ms(1), ms(1));
        progress.walked_over(&mut pass, ms(250), ms(250));
        progress.suspend(pass);
        let mut pass = progress.resume(200, ms(250));
        progress.walked_over(&mut pass, ms(500), ms(250));
        progress.finish(&pass);
        assert_eq!(progress.resume(300, ms(50_499)).place, Place::From(100));
        assert_eq!(progress.resume(300, ms(50_500)).place, START);
    }

    #[test]
    fn a_clock_set_back_ends_a_pass_that_was_cut_short() {
        let mut progress = Progress::default();
        let pass = progress.resume(1000, ms(0));
        progress.suspend(pass.clone());
        assert_eq!(progress.resume(1000, ms(1)), pass);
        progress.suspend(pass);
        assert_eq!(progress.resume(500, ms(2)).cutoff, 500);
    }

    #[test]
    fn a_clock_set_back_does_not_leave_a_gap() {
        let mut progress = Progress::default();
        passed(&mut progress, 1000, ms(0), ms(50));
        assert_eq!(progress.resume(500, ms(60)).place, Place::From(500));
    }
}
