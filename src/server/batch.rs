//! A batch under way: how it deletes, and what it means when it fails.

use super::failure::Failure;
use super::orphans;
use super::pass::Stop;
use super::sandbox::with_lock_timeout;
use super::sql::{Arg, Row, required};
use super::statements::Reap;
use super::transaction::snapshot_is_kept;
use crate::decide::fault::{Fault, fault};
use crate::decide::orphan::{Orphan, Rule};
use crate::decide::walk::rows::Snag;
use std::cell::Cell;
use std::time::Duration;

/// How long a batch waits for a lock before it is taken by another road. Somebody who waits for a
/// row that the batch has deleted waits so much longer.
pub const PATIENCE: Duration = Duration::from_millis(20);

/// How many rows went, and what is to be said of them.
pub type Reaped = (u64, Vec<Orphan>);

/// A batch under way.
pub struct Doing {
    rule: Rule,
    /// Whether its rows are logged.
    pub tells: bool,
    /// Whether it may be waiting for a lock that it can do without.
    waits: Cell<bool>,
    /// Whether it is about rows, deleting them for the most part, and not about something else.
    reaps: Cell<bool>,
}

impl Doing {
    pub fn new(rule: Rule, tells: bool) -> Doing {
        Doing { rule, tells, waits: Cell::new(false), reaps: Cell::new(false) }
    }

    /// Deletes, and passes over what the statement passes over.
    pub fn reap(&self, statement: &Reap, args: &[Arg]) -> Result<Reaped, Failure> {
        let (rule, statement) = (self.rule, statement.of(self.tells));
        if !self.tells
            && let Some(done) = self.about_rows(|| statement.delete(args, None))?
        {
            return Ok((done.reaped, vec![]));
        }
        let orphan = |row: &Row| {
            Ok(Orphan {
                execution_id: row.text(1),
                organization_id: row.text(2),
                remaining: row.int8(3),
                deadline: orphans::deadline(rule, required(row.int8(4), "deadline")?),
            })
        };
        self.about_rows(|| statement.write(args, orphan))
    }

    /// Runs `work`, in which a row's filter may raise an error.
    pub fn about_rows<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.reaps.set(true);
        let done = work()?;
        self.reaps.set(false);
        Ok(done)
    }

    /// Deletes, and waits a moment for locks. Nobody can be passed over without a wait by a plain
    /// `DELETE`, which is the fast one.
    pub fn patiently<T>(&self, delete: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.waits.set(true);
        let done = self.about_rows(|| with_lock_timeout(PATIENCE, delete))?;
        self.waits.set(false);
        Ok(done)
    }

    /// What it means that the batch was rolled back for this.
    pub fn snag(&self, stop: Stop) -> Snag<Stop> {
        let Stop::Failed(failure) = &stop else { return Snag::Stop(stop) };
        match fault(&failure.sqlstate()) {
            Fault::Lock | Fault::Change if self.waits.get() => Snag::MetALock,
            // A function of a row's has raised it, or moved a row. A snapshot that is older than the batch
            // is the caller's, who must begin anew.
            Fault::Change if self.reaps.get() && !snapshot_is_kept() => Snag::Cancelled(stop),
            // Of a row that it leads to, by a key that cascades or in a trigger. Fewer rows may do
            // without, and others do.
            Fault::Lock if self.reaps.get() => Snag::Cancelled(stop),
            Fault::Time => Snag::Cancelled(stop),
            // Neither the lease nor what else a batch is about knows of rows.
            Fault::Row if self.reaps.get() => Snag::Row(stop),
            Fault::Lock | Fault::Change | Fault::Row | Fault::Table => Snag::Stop(stop),
        }
    }
}
