//! Leadership by the lease row: the statements, each within the caller's transaction.
//!
//! No lock is waited for: neither for the row, nor for the table, so that a session that holds
//! either for minutes hangs nothing, not even the way out of the process.

use super::extension::Extension;
use super::failure::Failure;
use super::sql::{self, Arg, required};
use crate::decide::lease::{LeaseRow, Sight, Term};
use pgrx::pg_sys;

/// The lease as it stands, without taking a transaction id.
pub fn look(extension: &Extension) -> Result<Sight, Failure> {
    sight(
        extension,
        pg_sys::AccessShareLock,
        include_str!("../../sql/lease/look.sql"),
        Sight::Missing,
    )
}

/// The lease, its row locked until the end of the transaction. No row to be had means that
/// somebody else holds it, or that it is gone: [`look`] tells them apart.
pub fn lock(extension: &Extension) -> Result<Sight, Failure> {
    sight(
        extension,
        pg_sys::RowExclusiveLock,
        include_str!("../../sql/lease/lock.sql"),
        Sight::Locked,
    )
}

fn sight(
    extension: &Extension,
    mode: u32,
    template: &str,
    without_a_row: Sight,
) -> Result<Sight, Failure> {
    let Some(table) = extension.lease_table else {
        return Ok(Sight::Missing);
    };
    // SAFETY: takes a lock until the end of the transaction, or does not.
    if !unsafe { pg_sys::ConditionalLockRelationOid(table, mode as pg_sys::LOCKMODE) } {
        return Ok(Sight::Locked);
    }
    let mut rows = sql::query(&extension.sql(template), &[], |row| {
        Ok(LeaseRow {
            leader: row.text(1).unwrap_or_default(),
            term: required(row.int8(2), "term")?,
            acquired_at: row.int8(3).unwrap_or(i64::MIN),
        })
    })?;
    Ok(match (rows.pop(), rows.is_empty()) {
        (None, _) => without_a_row,
        (Some(row), true) => Sight::Row(row),
        (Some(_), false) => Sight::Doubled,
    })
}

/// Takes the row, which is locked and was judged free or stale as `found`; returns the new term.
pub fn acquire(extension: &Extension, me: &str, found: &LeaseRow) -> Result<i64, Failure> {
    let statement = extension.sql(include_str!("../../sql/lease/acquire.sql"));
    let args = [Arg::Text(me), Arg::Int8(found.term)];
    let terms = sql::query(&statement, &args, |row| required(row.int8(1), "term"))?;
    terms
        .into_iter()
        .next()
        .ok_or_else(|| Failure::internal("the lease row vanished under its lock"))
}

/// Stamps the row with the time of now, if it is ours.
pub fn stamp(extension: &Extension, me: &str, term: &Term) -> Result<bool, Failure> {
    ours(extension, include_str!("../../sql/lease/stamp.sql"), me, term)
}

/// Frees the row, if it is ours.
pub fn release(extension: &Extension, me: &str, term: &Term) -> Result<bool, Failure> {
    ours(extension, include_str!("../../sql/lease/release.sql"), me, term)
}

fn ours(extension: &Extension, template: &str, me: &str, term: &Term) -> Result<bool, Failure> {
    let touched = sql::execute(&extension.sql(template), &[Arg::Text(me), Arg::Int8(term.number)])?;
    Ok(touched == 1)
}

/// Puts back a row that was deleted, free, with `last_term` so that no term is issued twice.
pub fn restore(extension: &Extension, last_term: i64) -> Result<(), Failure> {
    let statement = extension.sql(include_str!("../../sql/lease/restore.sql"));
    sql::execute(&statement, &[Arg::Int8(last_term)]).map(|_| ())
}
