//! Which index leads to the rows that are due.

use super::failure::Failure;
use super::kept;
use super::sandbox::with_plain_output;
use super::sql::{self, Arg};
use super::target::{Target, Watched};
use pgrx::pg_sys;

/// What an index that leads with the deadline's column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// All rows.
    Whole,
    /// Just those that the filter lets through.
    Filtered,
    /// There is none.
    Nothing,
}

/// By what rows of `relation` are found in the order of `column`. The column's name is quoted
/// where it must be.
pub fn by(relation: pg_sys::Oid, column: &str, filter: Option<&str>) -> Result<By, Failure> {
    let statement = sql::statement(include_str!("../../sql/indexed.sql"));
    let args = [Arg::Oid(relation), Arg::Text(column), Arg::Text(filter.unwrap_or_default())];
    let look = || kept::query(&statement, &args, |row| Ok((row.bool(1), row.bool(2))));
    let found = match filter {
        None => look()?,
        // As it was written when it was kept.
        Some(_) => with_plain_output(look)?,
    };
    Ok(match found.first() {
        Some((Some(true), _)) => By::Whole,
        Some((_, Some(true))) => By::Filtered,
        _ => By::Nothing,
    })
}

/// By what the due rows of `target` are found.
pub fn serves(target: &Target, watched: &Watched) -> Result<By, Failure> {
    by(target.relation, &watched.deadline.column, watched.filter.as_deref())
}
