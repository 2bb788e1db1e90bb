//! Leadership by the lease row: the statements, each within the caller's transaction.
//!
//! No lock is waited for: neither for the row, nor for the table, so that a session that holds
//! either for minutes hangs nothing, not even the way out of the process.

use super::failure::Failure;
use super::kept;
use super::lease_table::LeaseTable;
use super::relation;
use super::sql::{self, Arg, Row, required};
use crate::decide::lease::{LeaseRow, Sight, Term};
use pgrx::pg_sys;

/// The lease as it stands, without taking a transaction id.
pub fn look(table: &LeaseTable) -> Result<Sight, Failure> {
    let template = include_str!("../../sql/lease/look.sql");
    sight(table, pg_sys::AccessShareLock, template, Sight::Missing)
}

/// The lease, its row locked until the end of the transaction. No row to be had means that
/// somebody else holds it, or that it is gone: [`look`] tells them apart.
pub fn lock(table: &LeaseTable) -> Result<Sight, Failure> {
    let template = include_str!("../../sql/lease/lock.sql");
    sight(table, pg_sys::RowExclusiveLock, template, Sight::Locked)
}

fn sight(
    table: &LeaseTable,
    mode: u32,
    template: &str,
    without_a_row: Sight,
) -> Result<Sight, Failure> {
    // SAFETY: takes a lock until the end of the transaction, or does not.
    if !unsafe { pg_sys::ConditionalLockRelationOid(table.oid, mode as pg_sys::LOCKMODE) } {
        return Ok(Sight::Locked);
    }
    if table.shared {
        match relation::lock(table.oid, mode) {
            None => return Ok(Sight::Missing),
            // Renamed, or given to another owner: it is looked for again before it is trusted.
            Some(now) if !table.is(&now) => return Ok(Sight::Locked),
            Some(_) => {}
        }
    }
    let statement = table.sql(template);
    let found = |row: &Row| {
        Ok(LeaseRow {
            leader: row.text(1).unwrap_or_default(),
            term: required(row.int8(2), "term")?,
            acquired_at: row.int8(3).unwrap_or(i64::MIN),
        })
    };
    let (_, mut rows) = table.act(|| kept::run(&statement, &[], found))?;
    Ok(match (rows.pop(), rows.is_empty()) {
        (None, _) => without_a_row,
        (Some(row), true) => Sight::Row(row),
        (Some(_), false) => Sight::Doubled,
    })
}

/// Takes the row, which is locked and was judged free or stale as `found`; returns the new term.
pub fn acquire(table: &LeaseTable, me: &str, found: &LeaseRow) -> Result<i64, Failure> {
    let statement = table.sql(match table.shared {
        true => include_str!("../../sql/lease/acquire_shared.sql"),
        false => include_str!("../../sql/lease/acquire.sql"),
    });
    let args = [Arg::Text(me), Arg::Int8(found.term)];
    let terms = table.act(|| sql::query(&statement, &args, |row| required(row.int8(1), "term")))?;
    terms
        .into_iter()
        .next()
        .ok_or_else(|| Failure::internal("the lease row vanished under its lock"))
}

/// Stamps the row with the time of now, if it is ours.
pub fn stamp(table: &LeaseTable, me: &str, term: &Term) -> Result<bool, Failure> {
    ours(table, include_str!("../../sql/lease/stamp.sql"), me, term)
}

/// Frees the row, if it is ours.
pub fn release(table: &LeaseTable, me: &str, term: &Term) -> Result<bool, Failure> {
    ours(table, include_str!("../../sql/lease/release.sql"), me, term)
}

fn ours(table: &LeaseTable, template: &str, me: &str, term: &Term) -> Result<bool, Failure> {
    let args = [Arg::Text(me), Arg::Int8(term.number)];
    let done = table.act(|| kept::run(&table.sql(template), &args, |_| Ok(())));
    done.map(|(touched, _)| touched == 1)
}

/// Puts back a row of pg_reaper's own that was deleted, free, with `last_term` so that no term is
/// issued twice.
pub fn restore(table: &LeaseTable, last_term: i64) -> Result<(), Failure> {
    let statement = table.sql(include_str!("../../sql/lease/restore.sql"));
    table.act(|| sql::execute(&statement, &[Arg::Int8(last_term)])).map(|_| ())
}
