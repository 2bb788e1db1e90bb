//! The moves on the lease row, each the work of one transaction.

use super::clock::server_now;
use super::exit::{self, Functions};
use super::failure::Failure;
use super::lease_row;
use super::lease_table::LeaseTable;
use super::timeouts;
use super::transaction::in_transaction;
use crate::decide::lease::{Sight, Term, Verdict, claim, judge};
use std::time::Duration;

/// Makes a move on the lease table. What another's constraints make of it ends in time, before
/// trust in the lease does.
pub fn moved<T>(
    table: &LeaseTable,
    lease: Duration,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    match table.shared {
        true => {
            exit::running(Some(Functions::OfLease(table.oid)));
            let outcome = timeouts::limited(lease / 3, || in_transaction(work));
            exit::running(None);
            outcome
        }
        false => in_transaction(work),
    }
}

/// Stamps the row, if it is still ours.
pub fn renew(table: &LeaseTable, me: &str, term: &Term) -> Result<Verdict, Failure> {
    let mut sight = lease_row::lock(table)?;
    if sight == Sight::Locked && lease_row::look(table)? == Sight::Missing {
        sight = Sight::Missing;
    }
    let verdict = judge(me, term, &sight);
    if verdict == Verdict::Ours && !lease_row::stamp(table, me, term)? {
        return Ok(Verdict::InDoubt);
    }
    Ok(verdict)
}

/// Takes the row for `me`, if it is free; its term.
pub fn acquire(table: &LeaseTable, me: &str, lease: Duration) -> Result<Option<i64>, Failure> {
    match lease_row::lock(table)? {
        Sight::Row(row) if claim(&row, server_now(), lease).is_some() => {
            lease_row::acquire(table, me, &row).map(Some)
        }
        _ => Ok(None),
    }
}
