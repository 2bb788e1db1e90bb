//! What is called from SQL. `sql/functions.sql` declares it.

mod adopt;
mod control;
mod policy;
mod preview;
mod resume;
mod settle;
mod status;
mod suspended;
mod sweep;
mod watchable;

use crate::server::failure::Failure;
use crate::server::sandbox::with_pinned_path;
use crate::server::transaction::contain;

/// The body of a function that SQL calls: its errors become errors of the statement, without the
/// Rust backtrace that pgrx would add to those of PostgreSQL.
fn answer<T>(work: impl FnOnce() -> Result<T, Failure>) -> T {
    contain(|| with_pinned_path(work)).unwrap_or_else(|failure| failure.raise())
}
