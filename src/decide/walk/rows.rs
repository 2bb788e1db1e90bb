//! What the walk asks of a table, and what it is told.

use super::super::ServerTime;
use super::super::ahead::Due;
use super::super::progress::Pass;
use super::super::quarantine::Why;

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
    /// A row of it cannot be reaped.
    Row(E),
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
    /// begins, and none that is due at `until` or later.
    fn range(
        &mut self,
        from: ServerTime,
        until: ServerTime,
        most: usize,
        pass: &mut Pass,
    ) -> Result<Ranged, Snag<Self::Stop>>;
    /// Reaps these rows where they are still due; returns how many. Waits a moment for those that
    /// are locked, or passes over them.
    fn these(&mut self, rows: &[Due], wait: bool, pass: &mut Pass)
    -> Result<u64, Snag<Self::Stop>>;
    /// Whether what is read holds rows too that are left out when it comes to reaping them.
    fn reads_all(&self) -> bool;
    /// Told of a batch of so many rows that was cancelled, and is tried again with fewer.
    fn cancelled(&mut self, rows: usize, why: &Self::Stop);
    /// Told that rows in quarantine were among those that were read last.
    fn read_over(&mut self);
    /// What is to be said of a row that failed alone; nothing where it is not to blame. Where it fails
    /// `again` and again it is, though each time it may look like somebody else's doing.
    fn why(&self, stop: &Self::Stop, again: bool) -> Option<Why>;
    /// What stops the pass where a row failed and the quarantine has so many already, which is full.
    fn full(&self, held: usize, stop: Self::Stop) -> Self::Stop;
    /// Whether to come back later for the rest. Asked between batches.
    fn should_yield(&mut self) -> bool;
}
