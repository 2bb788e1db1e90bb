//! The walk of one pass: which rows a batch takes, and by which road.
//!
//! Where an index leads with the deadline, a batch is a *range*: the deadline of the row that comes
//! `batch_size` rows on is the *cut*, and what lies before it is deleted. That reads each entry of
//! the index twice and no more; or once, where the deletion itself finds the cut, and then may have
//! had some rows at the cut too. The pass goes on from there. Where the cut is where the range
//! begins, more rows share one deadline than a batch may have: a *tie*, whose rows are read ahead as
//! tids, and reaped by these. So are all rows where there is no such index, where batches had to
//! shrink, and for a while after a range met a lock.
//!
//! A row that cannot be reaped makes its batch fail. It is looked for by halves, and goes into
//! quarantine once it fails alone: ranges end before such a row, and by tids it is left out.

use super::ServerTime;
use super::ahead::{Ahead, Due, Then, Tid};
use super::batch::BatchSize;
use super::contention::Contention;
use super::progress::{Pass, Place};
use super::quarantine::Quarantine;
use std::time::Duration;

pub mod retry;
pub mod rows;

use rows::{Cut, End, Rows, Snag};

/// How many tids are read ahead at once: bounds memory (16 bytes each), and how long what was read
/// waits for its turn.
const READ_AHEAD: usize = 20_000;

/// How many tids of a tie are read ahead at once. Each time the entries of the tie are walked from
/// its beginning, dead ones too, so a tie of a million rows is not read in small pieces.
const READ_TIE: usize = 500_000;

/// How often a row fails alone before it is to blame whatever it looks like.
const AGAIN: u32 = 3;

/// What the batches of one table have learnt.
#[derive(Clone, Debug)]
pub struct Pace {
    size: BatchSize,
    contention: Contention,
    /// The row that failed alone the last time, and how often in a row.
    alone: Option<(Due, u32)>,
}

impl Pace {
    /// `setting` is the most rows in a batch.
    pub fn new(setting: usize) -> Pace {
        Pace { size: BatchSize::new(setting), contention: Contention::default(), alone: None }
    }
}

/// The bounds of one turn.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most rows in a batch.
    pub batch_size: usize,
    /// The most rows to reap in the pass.
    pub max_rows: u64,
    /// The most rows in quarantine; none: there is no quarantine, and a row that fails stops the
    /// pass.
    pub quarantine: usize,
    /// From when on the next try of a row that fails is counted.
    pub now: ServerTime,
    /// How long it is left alone at first.
    pub first_wait: Duration,
}

impl Bounds {
    /// How many rows may still be reaped.
    fn room(&self, pass: &Pass) -> usize {
        usize::try_from(self.max_rows.saturating_sub(pass.reaped())).unwrap_or(usize::MAX)
    }
}

/// Reaps the due rows of a table in the order of their deadlines, or those of an unordered pass.
pub fn walk<R: Rows>(
    rows: &mut R,
    pass: &mut Pass,
    pace: &mut Pace,
    quarantine: &mut Quarantine,
    bounds: &Bounds,
) -> Result<End, R::Stop> {
    let mut walk = Walk { rows, pass, pace, quarantine, bounds, begun: false };
    loop {
        if walk.room() == 0 {
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
    quarantine: &'a mut Quarantine,
    bounds: &'a Bounds,
    /// Whether there was a batch already: each walk has one at least.
    begun: bool,
}

impl<R: Rows> Walk<'_, R> {
    fn room(&self) -> usize {
        self.bounds.room(self.pass)
    }

    /// One read, or one batch.
    fn step(&mut self) -> Result<Option<End>, R::Stop> {
        if let Some(ahead) = self.pass.ahead.take() {
            return self.these(ahead);
        }
        let by_range =
            self.pace.size.is_whole(self.bounds.batch_size) && self.pace.contention.waits();
        match self.pass.place {
            Place::From(from) if self.rows.indexed() => self.first(from, false),
            Place::Past(deadline) if self.rows.indexed() => self.first(deadline, true),
            Place::Within(after) if self.rows.indexed() => self.tie(after),
            Place::At(from) if self.rows.indexed() && by_range => {
                let until = self.quarantine.first_from(from).unwrap_or(ServerTime::MAX);
                match until > from {
                    true => self.range(from, until.min(self.pass.cutoff)),
                    false => self.ahead(self.pass.place.after()),
                }
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
        // So many more as may have to be left out: or one would read the same ones again.
        let most = READ_AHEAD.min(self.room()).saturating_add(self.quarantine.len());
        let read = self.rows.ahead(after, most, self.pass)?;
        let then = if read.len() < most { Then::End } else { Then::More };
        self.go_on_with(Ahead::new(read, then));
        Ok(None)
    }

    fn tie(&mut self, after: Due) -> Result<Option<End>, R::Stop> {
        let most = READ_TIE.min(self.room()).saturating_add(self.quarantine.len());
        let mut read = self.rows.tie(after, most, self.pass)?;
        if !read.is_sorted() {
            // An index made before PostgreSQL 12 keeps equal deadlines in no order: then rows may
            // have been left out here that come before others.
            read.sort_unstable();
            self.pass.left(after.deadline);
        }
        let then = if read.len() < most { Then::Past(after.deadline) } else { Then::More };
        self.go_on_with(Ahead::new(read, then));
        Ok(None)
    }

    /// With what was read ahead, but for rows in quarantine.
    fn go_on_with(&mut self, mut ahead: Ahead) {
        if ahead.leave_out(|row| self.quarantine.holds(row)) > 0 {
            self.rows.read_over();
        }
        self.pass.ahead = Some(ahead);
    }

    fn range(&mut self, from: ServerTime, until: ServerTime) -> Result<Option<End>, R::Stop> {
        if self.should_yield() {
            return Ok(Some(End::CutShort));
        }
        let most = self.pace.size.get(self.bounds.batch_size).min(self.room());
        match self.rows.range(from, until, most, self.pass) {
            Ok(done) => {
                self.pace.contention.went_through();
                if let Some(left) = done.left {
                    self.pass.left(left);
                }
                self.pass.place = match done.cut {
                    Cut::End if until < self.pass.cutoff => Place::At(until),
                    Cut::End => return Ok(Some(End::Done)),
                    Cut::Before(next) => Place::At(next),
                    Cut::Tie => Place::Within(Due { deadline: from, tid: Tid::FIRST }),
                };
                Ok(None)
            }
            Err(snag) => self.snag(snag, most, None),
        }
    }

    /// Reaps one batch of what was read ahead.
    fn these(&mut self, ahead: Ahead) -> Result<Option<End>, R::Stop> {
        let size = self.pace.size.get(self.bounds.batch_size);
        let batch = ahead.next(size.min(self.room()));
        let Some(&first) = batch.first() else {
            match ahead.then {
                Then::More => {}
                Then::Past(deadline) => self.pass.place = Place::Past(deadline),
                Then::End => return Ok(Some(End::Done)),
            }
            return Ok(None);
        };
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
                self.pace.size.succeeded(self.bounds.batch_size, count);
                self.pace.contention.went_through();
                // What is left out each time is not to be looked for each time; what was locked is
                // found from the left edge.
                let done = if self.rows.reads_all() { count as u64 } else { reaped };
                self.pass.tried(count, done);
                Ok(None)
            }
            Some(Err(snag)) => self.snag(snag, count, (count == 1).then_some(first)),
        }
    }

    /// A batch of `count` rows was rolled back; `alone` is the row, where it was just one. After a
    /// lock the same rows are tried again by another road, after a cancellation in batches of half
    /// the size, and after a row has failed in halves of what it must be in.
    fn snag(
        &mut self,
        snag: Snag<R::Stop>,
        count: usize,
        alone: Option<Due>,
    ) -> Result<Option<End>, R::Stop> {
        match (snag, alone) {
            (Snag::MetALock, _) => self.pace.contention.met_a_lock(),
            (Snag::Cancelled(why), _) if count > 1 => {
                self.pace.size.timed_out(count);
                self.rows.cancelled(count, &why);
            }
            (Snag::Row(why), Some(row)) => {
                self.isolate(row, why)?;
            }
            // Others are likely to take as long, so it is not their turn at once.
            (Snag::Cancelled(why), Some(row)) => return Err(self.isolate(row, why)?),
            (Snag::Row(_) | Snag::Cancelled(_), None) if self.bounds.quarantine > 0 => {
                self.pace.size.failed(count);
            }
            (Snag::Row(why) | Snag::Cancelled(why) | Snag::Stop(why), _) => return Err(why),
        }
        Ok(None)
    }

    /// The next of the rows that were read ahead failed alone. It goes into quarantine, and `why` is
    /// given back; an error where it cannot.
    fn isolate(&mut self, row: Due, why: R::Stop) -> Result<R::Stop, R::Stop> {
        let before =
            self.pace.alone.filter(|(known, _)| *known == row).map_or(0, |(_, times)| times);
        self.pace.alone = Some((row, before + 1));
        let said = self.rows.why(&why, before + 1 >= AGAIN);
        let Some(said) = said.filter(|_| self.bounds.quarantine > 0) else {
            return Err(why);
        };
        let held = self.quarantine.len();
        if held >= self.bounds.quarantine {
            return Err(self.rows.full(held, why));
        }
        self.quarantine.isolate(row, said, self.bounds.now, self.bounds.first_wait);
        self.pass.isolated();
        Ok(why)
    }
}

#[cfg(test)]
mod tests;
