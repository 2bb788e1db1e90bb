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
use super::progress::{Due, Pass, Place, Tid};

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

/// Reaps the due rows of a table in the order of their deadlines, `max_rows` at the most.
pub fn walk<R: Rows>(
    rows: &mut R,
    pass: &mut Pass,
    pace: &mut Pace,
    setting: usize,
    max_rows: u64,
) -> Result<End, R::Stop> {
    loop {
        let room = max_rows.saturating_sub(pass.reaped());
        if room == 0 {
            return Ok(End::MaxRows);
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let step = match pass.place {
            place if !rows.indexed() => ahead(rows, place, room, pass, pace, setting)?,
            Place::From(from) => first(rows, from, false, pass)?,
            Place::Past(deadline) => first(rows, deadline, true, pass)?,
            Place::Within(after) => tie(rows, after, room, pass, pace, setting)?,
            Place::At(from) if pace.size.is_whole(setting) && pace.contention.waits() => {
                range(rows, from, room, pass, pace, setting)?
            }
            place => ahead(rows, place, room, pass, pace, setting)?,
        };
        if let Some(end) = step {
            return Ok(end);
        }
    }
}

fn first<R: Rows>(
    rows: &mut R,
    from: ServerTime,
    past: bool,
    pass: &mut Pass,
) -> Result<Option<End>, R::Stop> {
    let Some(found) = rows.first(from, past, pass)? else {
        return Ok(Some(End::Done));
    };
    pass.place = Place::At(found);
    Ok(None)
}

fn range<R: Rows>(
    rows: &mut R,
    from: ServerTime,
    room: usize,
    pass: &mut Pass,
    pace: &mut Pace,
    setting: usize,
) -> Result<Option<End>, R::Stop> {
    let most = pace.size.get(setting).min(room);
    match rows.range(from, most, pass) {
        Ok(done) => {
            pace.contention.went_through();
            if let Some(left) = done.left {
                pass.left(left);
            }
            match done.cut {
                Cut::End => return Ok(Some(End::Done)),
                Cut::Before(next) => pass.place = Place::At(next),
                Cut::Tie => pass.place = Place::Within(Due { deadline: from, tid: Tid::FIRST }),
            }
        }
        Err(Snag::MetALock) => pace.contention.met_a_lock(),
        Err(Snag::Cancelled(why)) if pace.size.timed_out(most) => rows.cancelled(most, &why),
        Err(Snag::Cancelled(why) | Snag::Stop(why)) => return Err(why),
    }
    Ok(rows.should_yield().then_some(End::CutShort))
}

fn tie<R: Rows>(
    rows: &mut R,
    after: Due,
    room: usize,
    pass: &mut Pass,
    pace: &mut Pace,
    setting: usize,
) -> Result<Option<End>, R::Stop> {
    let most = READ_TIE.min(room);
    let mut read = rows.tie(after, most, pass)?;
    if !read.is_sorted() {
        // An index made before PostgreSQL 12 keeps equal deadlines in no order: then rows may have
        // been left out here that come before others.
        read.sort_unstable();
        pass.left(after.deadline);
    }
    if !these(rows, &read, true, pass, pace, setting)? {
        return Ok(Some(End::CutShort));
    }
    if read.len() < most {
        pass.place = Place::Past(after.deadline);
    }
    Ok(None)
}

fn ahead<R: Rows>(
    rows: &mut R,
    place: Place,
    room: usize,
    pass: &mut Pass,
    pace: &mut Pace,
    setting: usize,
) -> Result<Option<End>, R::Stop> {
    let most = READ_AHEAD.min(room);
    let read = rows.ahead(place.after(), most, pass)?;
    if !these(rows, &read, true, pass, pace, setting)? {
        return Ok(Some(End::CutShort));
    }
    Ok((read.len() < most).then_some(End::Done))
}

/// Reaps `due` batch by batch; false when there are some left and it is others' turn. After a
/// cancellation the same rows are tried again in batches of half the size, down to one.
pub fn these<R: Rows>(
    rows: &mut R,
    mut due: &[Due],
    may_wait: bool,
    pass: &mut Pass,
    pace: &mut Pace,
    setting: usize,
) -> Result<bool, R::Stop> {
    while !due.is_empty() {
        let (batch, rest) = due.split_at(pace.size.get(setting).min(due.len()));
        match rows.these(batch, may_wait && pace.contention.waits(), pass) {
            Ok(reaped) => {
                pace.size.succeeded(setting);
                pace.contention.went_through();
                pass.batch_done(batch[0], batch[batch.len() - 1], batch.len(), reaped);
                due = rest;
            }
            Err(Snag::MetALock) => pace.contention.met_a_lock(),
            Err(Snag::Cancelled(why)) if pace.size.timed_out(batch.len()) => {
                rows.cancelled(batch.len(), &why);
            }
            Err(Snag::Cancelled(why) | Snag::Stop(why)) => return Err(why),
        }
        if !due.is_empty() && rows.should_yield() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
