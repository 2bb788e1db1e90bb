//! What pg_reaper decides, apart from PostgreSQL.
//!
//! Nothing here knows pgrx, reads a clock or touches a server: `now` is an argument.
//! Without a `pgNN` feature this is all that is compiled, so the compiler keeps it so.
//!
//! Two clocks appear, and they are different types on purpose. [`ServerTime`] is the one
//! clock that leases and deadlines are judged by. [`Ticks`] is local and monotonic: it may end
//! trust in a lease earlier, and paces the worker, but never judges a row.

pub mod advice;
pub mod ahead;
pub mod batch;
pub mod brake;
pub mod config;
pub mod contention;
pub mod databases;
pub mod deadline;
pub mod fault;
pub mod fleet;
pub mod lease;
pub mod meaning;
pub mod order;
pub mod orphan;
pub mod progress;
pub mod quarantine;
pub mod rate;
pub mod refusal;
pub mod rest;
pub mod rota;
pub mod scan;
pub mod schedule;
pub mod shape;
pub mod version;
pub mod walk;

use std::time::Duration;

/// The server's clock: microseconds since 2000-01-01 00:00 UTC, as in `timestamptz`.
pub type ServerTime = i64;

/// Local monotonic time: how long since this process started to count.
pub type Ticks = Duration;

/// `duration` in the microseconds of [`ServerTime`], saturating.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
