//! A table under lock, as it is now and not as some snapshot has it.
//!
//! What was read about a table may be old by the time it is used: renamed, or given to another
//! owner, as whom we would then run. So each transaction locks the table first, which holds both
//! still, and looks again through the relation cache, which knows the newest state whatever
//! snapshot the transaction has.

use super::changes;
use super::clock::ticks;
use super::encoding::decode;
use super::failure::Failure;
use super::kept;
use super::meaning;
use super::policies;
use super::sql::{self, Arg};
use super::target::Target;
use super::transaction::{in_transaction, snapshot_is_kept};
use crate::decide::Ticks;
use crate::decide::deadline::ColumnType;
use crate::decide::refusal::Refusal;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;
use std::time::Duration;

/// What the lock holds still.
pub struct Now {
    pub owner: pg_sys::Oid,
    /// Its name, qualified, and quoted where it must be.
    pub name: String,
    /// A row that goes may take something else with it, or have something said: there are triggers
    /// (foreign keys too), or rules.
    pub reacts: bool,
}

/// Locks `relation` until the end of the transaction. `None`: it is gone.
pub fn lock(relation: pg_sys::Oid, mode: u32) -> Option<Now> {
    // SAFETY: within a transaction; the relation is closed again, its lock kept. Its name and
    // that of its schema are NUL-terminated; a schema that is gone has a null name.
    unsafe {
        let open = pg_sys::try_relation_open(relation, mode as pg_sys::LOCKMODE);
        if open.is_null() {
            return None;
        }
        let class = (*open).rd_rel;
        let schema = pg_sys::get_namespace_name((*class).relnamespace);
        let name = (*class).relname.data.as_ptr();
        let name = CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name));
        let reacts = (*class).relhastriggers || (*class).relhasrules;
        let now = Now { owner: (*class).relowner, name: decode(name), reacts };
        pg_sys::relation_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
        Some(now)
    }
}

/// How much longer one sweep waits for locks of tables. While somebody holds all the leaves of one,
/// rows of others fall due.
pub struct Patience(Cell<Duration>);

impl Patience {
    pub fn new(most: Duration) -> Patience {
        Patience(Cell::new(most))
    }

    /// Locks the table of `target` as [`lock`] does; waits for it only while there is patience left.
    fn lock(&self, target: &Target, mode: u32) -> Result<Option<Now>, Failure> {
        // SAFETY: takes a lock until the end of the transaction, or does not.
        let at_once = unsafe {
            pg_sys::ConditionalLockRelationOid(target.relation, mode as pg_sys::LOCKMODE)
        };
        if at_once {
            return Ok(lock(target.relation, mode));
        }
        if self.0.get().is_zero() {
            return Err(Refusal::Locked { relation: target.name.clone() }.into());
        }
        // It may end by an error, too.
        let _wait = Wait { of: self, since: ticks() };
        Ok(lock(target.relation, mode))
    }
}

/// A wait under way.
struct Wait<'a> {
    of: &'a Patience,
    since: Ticks,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let left = self.of.0.get();
        self.of.0.set(left.saturating_sub(ticks().saturating_sub(self.since)));
    }
}

/// Whether `relation` was dropped. Outside of any transaction; where it cannot be told, it was not.
pub fn is_gone(relation: pg_sys::Oid) -> bool {
    // SAFETY: looks into the catalogue, in a transaction; a palloc'd string or null.
    in_transaction(|| Ok(unsafe { pg_sys::get_rel_name(relation) }.is_null())).unwrap_or(false)
}

/// Locks the table of `target` until the end of the transaction, and makes sure that it is still
/// what it was when the policies were read. Without `patience` it is waited for in any case.
pub fn hold_still(target: &Target, mode: u32, patience: Option<&Patience>) -> Result<Now, Failure> {
    let locked = match patience {
        Some(patience) => patience.lock(target, mode)?,
        None => lock(target.relation, mode),
    };
    let now = locked
        .filter(|now| now.owner == target.owner && now.name == target.name)
        .ok_or_else(|| changed(target))?;
    // With the lock we were told of what has changed, which may be what we have waited for. What a
    // caller's old snapshot shows may have changed long ago.
    if snapshot_is_kept() || changes::so_far() != target.reading.changes {
        see_that_it_is_still_watched(target)?;
    }
    meaning::see_that_it_stands(target)?;
    Ok(now)
}

fn changed(target: &Target) -> Failure {
    Refusal::Changed { relation: target.name.clone() }.into()
}

/// Makes sure that a leaf is one still, and has no trigger of another's, and that deadlines are of the
/// type by which they are compared: a local time is compared with a point in time by the time zone of
/// the session.
fn see_that_it_is_still_watched(target: &Target) -> Result<(), Failure> {
    let Ok(watched) = &target.watched else { return Ok(()) };
    let deadline = &watched.deadline;
    let mut columns = vec![(&*deadline.column, deadline.column_type)];
    if watched.barrier.is_some_and(|shape| shape.last_progress_at) {
        columns.push(("last_progress_at", ColumnType::Timestamptz));
    }
    let statement = sql::statement(include_str!("../../sql/still.sql"))
        .replace("@trigger_of_another@", &policies::trigger_of_another());
    for (column, of) in columns {
        let args = [
            Arg::Oid(target.relation),
            Arg::Oid(target.root),
            Arg::Text(column),
            Arg::Text(of.name()),
        ];
        let still = kept::query_newest(&statement, &args, |row| Ok(row.bool(1)))?;
        if still != [Some(true)] {
            return Err(changed(target));
        }
    }
    Ok(())
}
