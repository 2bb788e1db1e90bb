//! The walk of one pass: which rows a batch takes, and by which road.
//!
//! Where an index leads with the deadline, a batch is a *range*: the deadline of the row that comes
//! `batch_size` rows on is the *cut*, and what lies before it is deleted. That reads each entry of
//! the index twice and no more, and the pass goes on from the cut. Where the cut is where the range
//! begins, more rows share one deadline than a batch may have: a *tie*, whose rows are read ahead as
//! tids, and reaped by these. So are all rows where there is no such index, where batches had to
//! shrink, and for a while after a range met a lock.

use super::ServerTime;
use super::batch::BatchSize;
use super::contention::Contention;
use super::progress::{Ahead, Due, Pass, Place, Then, Tid};

/// How many tids are read ahead at once: bounds memory (16 bytes each), and how long what was read
/// waits for its turn.
const READ_AHEAD: usize = 20_000;

/// How many tids of a tie are read ahead at once. Each time the entries of the tie are walked from
/// its beginning, dead ones too, so a tie of a million rows is not read in small pieces.
const READ_TIE: usize = 500_000;

/// What stands after a number of rows from some deadline on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing that is due: the range is the rest.
    End,
    /// A row with this deadline, which is later.
    Before(ServerTime),
    /// A row with the same deadline.
    Tie,
}

impl Cut {
    /// `found` is the deadline of the row so many rows after the first from `from` on.
    pub fn of(from: ServerTime, found: Option<ServerTime>) -> Cut {
        match found {
            None => Cut::End,
            Some(deadline) if deadline > from => Cut::Before(deadline),
            Some(_) => Cut::Tie,
        }
    }
}

/// What a range did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranged {
    pub cut: Cut,
    /// The first deadline in it that still has a row.
    pub left: Option<ServerTime>,
}

/// Why a batch was rolled back.
#[derive(Debug)]
pub enum Snag<E> {
    /// It waited for a lock, and not for long.
    MetALock,
    /// It was cancelled, perhaps because it took too long.
    Cancelled(E),
    Stop(E),
}

/// How far a pass came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing due is left that could be had.
    Done,
    /// It goes on in the next cycle.
    CutShort,
    /// As many rows were reaped as were asked for.
    MaxRows,
}

/// The rows of one table. Each method is one transaction, and counts in `pass` what it reaps.
pub trait Rows {
    type Stop;

    /// Whether an index leads with the deadline.
    fn indexed(&self) -> bool;
    /// The first deadline that is due, from the one given on, or after it (`past`).
    fn first(
        &mut self,
        from: ServerTime,
        past: bool,
        pass: &mut Pass,
    ) -> Result<Option<ServerTime>, Self::Stop>;
    /// The first `most` due rows after `after`, in their order.
    fn ahead(&mut self, after: Due, most: usize, pass: &mut Pass) -> Result<Vec<Due>, Self::Stop>;
    /// The first `most` rows of one deadline after `after`, in their order.
    fn tie(&mut self, after: Due, most: usize, pass: &mut Pass) -> Result<Vec<Due>, Self::Stop>;
    /// Reaps the first `most` rows at the most from a deadline on, up to where the next deadline
    /// begins.
    fn range(
        &mut self,
        from: ServerTime,
        most: usize,
        pass: &mut Pass,
    ) -> Result<Ranged, Snag<Self::Stop>>;
    /// Reaps these rows where they are still due; returns how many. Waits a moment for those that
    /// are locked, or passes over them.
    fn these(&mut self, rows: &[Due], wait: bool, pass: &mut Pass)
    -> Result<u64, Snag<Self::Stop>>;
    /// Told of a batch of so many rows that was cancelled, and is tried again with fewer.
    fn cancelled(&mut self, rows: usize, why: &Self::Stop);
    /// Whether to come back later for the rest. Asked between batches.
    fn should_yield(&mut self) -> bool;
}

/// What the batches of one table have learnt.
#[derive(Clone, Debug)]
pub struct Pace {
    size: BatchSize,
    contention: Contention,
}

impl Pace {
    /// `setting` is the most rows in a batch.
    pub fn new(setting: usize) -> Pace {
        Pace { size: BatchSize::new(setting), contention: Contention::default() }
    }
}

/// Reaps the due rows of a table in the order of their deadlines, or those of an unordered pass.
/// `setting` is the most rows in a batch, `max_rows` in the pass.
pub fn walk<R: Rows>(
    rows: &mut R,
    pass: &mut Pass,
    pace: &mut Pace,
    setting: usize,
    max_rows: u64,
) -> Result<End, R::Stop> {
    let mut walk = Walk { rows, pass, pace, setting, room: 0, begun: false };
    loop {
        let room = max_rows.saturating_sub(walk.pass.reaped());
        walk.room = usize::try_from(room).unwrap_or(usize::MAX);
        if room == 0 {
            return Ok(End::MaxRows);
        }
        if let Some(end) = walk.step()? {
            return Ok(end);
        }
    }
}

struct Walk<'a, R> {
    rows: &'a mut R,
    pass: &'a mut Pass,
    pace: &'a mut Pace,
    setting: usize,
    /// How many rows may still be reaped.
    room: usize,
    /// Whether there was a batch already: each walk has one at least.
    begun: bool,
}

impl<R: Rows> Walk<'_, R> {
    /// One read, or one batch.
    fn step(&mut self) -> Result<Option<End>, R::Stop> {
        let whole = self.pace.size.is_whole(self.setting);
        if let Some(ahead) = self.pass.ahead.take() {
            return self.these(ahead);
        }
        match self.pass.place {
            Place::From(from) if self.rows.indexed() => self.first(from, false),
            Place::Past(deadline) if self.rows.indexed() => self.first(deadline, true),
            Place::Within(after) if self.rows.indexed() => self.tie(after),
            Place::At(from) if self.rows.indexed() && whole && self.pace.contention.waits() => {
                self.range(from)
            }
            place => self.ahead(place.after()),
        }
    }

    /// Whether it is others' turn before the next batch.
    fn should_yield(&mut self) -> bool {
        std::mem::replace(&mut self.begun, true) && self.rows.should_yield()
    }

    fn first(&mut self, from: ServerTime, past: bool) -> Result<Option<End>, R::Stop> {
        let Some(found) = self.rows.first(from, past, self.pass)? else {
            return Ok(Some(End::Done));
        };
        self.pass.place = Place::At(found);
        Ok(None)
    }

    fn ahead(&mut self, after: Due) -> Result<Option<End>, R::Stop> {
        let most = READ_AHEAD.min(self.room);
        let read = self.rows.ahead(after, most, self.pass)?;
        let then = if read.len() < most { Then::End } else { Then::More };
        self.pass.ahead = Some(Ahead::new(read, then));
        Ok(None)
    }

    fn tie(&mut self, after: Due) -> Result<Option<End>, R::Stop> {
        let most = READ_TIE.min(self.room);
        let mut read = self.rows.tie(after, most, self.pass)?;
        if !read.is_sorted() {
            // An index made before PostgreSQL 12 keeps equal deadlines in no order: then rows may
            // have been left out here that come before others.
            read.sort_unstable();
            self.pass.left(after.deadline);
        }
        let then = if read.len() < most { Then::Past(after.deadline) } else { Then::More };
        self.pass.ahead = Some(Ahead::new(read, then));
        Ok(None)
    }

    fn range(&mut self, from: ServerTime) -> Result<Option<End>, R::Stop> {
        if self.should_yield() {
            return Ok(Some(End::CutShort));
        }
        let most = self.pace.size.get(self.setting).min(self.room);
        match self.rows.range(from, most, self.pass) {
            Ok(done) => {
                self.pace.contention.went_through();
                if let Some(left) = done.left {
                    self.pass.left(left);
                }
                self.pass.place = match done.cut {
                    Cut::End => return Ok(Some(End::Done)),
                    Cut::Before(next) => Place::At(next),
                    Cut::Tie => Place::Within(Due { deadline: from, tid: Tid::FIRST }),
                };
                Ok(None)
            }
            Err(snag) => self.snag(snag, most),
        }
    }

    /// Reaps one batch of what was read ahead.
    fn these(&mut self, ahead: Ahead) -> Result<Option<End>, R::Stop> {
        let size = self.pace.size.get(self.setting);
        let batch = ahead.next(size.min(self.room));
        if batch.is_empty() {
            match ahead.then {
                Then::More => {}
                Then::Past(deadline) => self.pass.place = Place::Past(deadline),
                Then::End => return Ok(Some(End::Done)),
            }
            return Ok(None);
        }
        let count = batch.len();
        let turn_is_over = self.should_yield();
        let wait = self.pass.waits && self.pace.contention.waits();
        let done = match turn_is_over {
            true => None,
            false => Some(self.rows.these(batch, wait, self.pass)),
        };
        self.pass.ahead = Some(ahead);
        match done {
            None => Ok(Some(End::CutShort)),
            Some(Ok(reaped)) => {
                self.pace.size.succeeded(self.setting);
                self.pace.contention.went_through();
                self.pass.tried(count, reaped);
                Ok(None)
            }
            Some(Err(snag)) => self.snag(snag, count),
        }
    }

    /// A batch of `count` rows was rolled back. After a lock the same rows are tried again by
    /// another road, and after a cancellation in batches of half the size, down to one.
    fn snag(&mut self, snag: Snag<R::Stop>, count: usize) -> Result<Option<End>, R::Stop> {
        match snag {
            Snag::MetALock => self.pace.contention.met_a_lock(),
            Snag::Cancelled(why) if self.pace.size.timed_out(count) => {
                self.rows.cancelled(count, &why);
            }
            Snag::Cancelled(why) | Snag::Stop(why) => return Err(why),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
