//! `pg_reaper_status()`: what each worker of this server is doing.

use crate::decide::ServerTime;
use crate::server::encoding::reportable;
use crate::server::status::Slot;
use crate::server::{board, brake, settings, status};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

fn time(time: ServerTime) -> Option<TimestampWithTimeZone> {
    (time != 0).then(|| TimestampWithTimeZone::try_from(time).ok()).flatten()
}

/// A row for each worker, as 0.1.0 declares it.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "one column of the result each")]
fn pg_reaper_status() -> TableIterator<
    'static,
    (
        name!(database, Option<String>),
        name!(pid, Option<i32>),
        name!(state, &'static str),
        name!(leader, Option<String>),
        name!(term, Option<i64>),
        name!(started_at, Option<TimestampWithTimeZone>),
        name!(last_cycle, Option<TimestampWithTimeZone>),
        name!(last_sweep, Option<TimestampWithTimeZone>),
        name!(rows_reaped, i64),
        name!(errors, i64),
        name!(failures_in_a_row, i32),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
    ),
> {
    TableIterator::new(slots().into_iter().map(|slot| {
        (
            slot.database.get().map(|name| reportable(&name)),
            (slot.pid != 0).then_some(slot.pid),
            slot.state.name(),
            slot.leader.get().map(|id| reportable(&id)),
            (slot.term != 0).then_some(slot.term),
            time(slot.started_at),
            time(slot.last_cycle),
            time(slot.last_sweep),
            slot.rows_reaped,
            slot.errors,
            slot.failures_in_a_row,
            slot.last_error.get().map(|error| reportable(&error)),
            time(slot.last_error_at),
        )
    }))
}

/// The same, with what holds the passes. A function of another name, so that a library that knows
/// nothing of the last column is never asked for it.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "one column of the result each")]
fn pg_reaper_status_held() -> TableIterator<
    'static,
    (
        name!(database, Option<String>),
        name!(pid, Option<i32>),
        name!(state, &'static str),
        name!(leader, Option<String>),
        name!(term, Option<i64>),
        name!(started_at, Option<TimestampWithTimeZone>),
        name!(last_cycle, Option<TimestampWithTimeZone>),
        name!(last_sweep, Option<TimestampWithTimeZone>),
        name!(rows_reaped, i64),
        name!(errors, i64),
        name!(failures_in_a_row, i32),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
        name!(held, Option<String>),
    ),
> {
    let rows = pg_reaper_status();
    let held = brake::held(&settings::read()).map(|hold| hold.to_string());
    TableIterator::new(rows.map(move |(a, pid, b, c, d, e, f, g, h, i, j, k, l)| {
        // Who is down is not held.
        (a, pid, b, c, d, e, f, g, h, i, j, k, l, pid.and(held.clone()))
    }))
}

/// The workers. Where there is no shared memory there is none to be seen, and a NOTICE says why.
fn slots() -> Vec<Slot> {
    board::attach();
    if !board::available() {
        ereport!(
            PgLogLevel::NOTICE,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "no worker can be seen, since pg_reaper is not in shared_preload_libraries and this \
             PostgreSQL has no other shared memory for it"
        );
    }
    status::all()
}
