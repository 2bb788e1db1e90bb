//! One table to sweep, and what is due in it.

use super::clock::iso;
use super::failure::Failure;
use super::sql::{self, Arg, required};
use crate::decide::ServerTime;
use crate::decide::deadline::Deadline;
use crate::decide::fault::{Fault, fault};
use crate::decide::meaning::Kept;
use crate::decide::refusal::Refusal;
use crate::decide::shape::Shape;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;
use std::time::Duration;

/// A table of a policy.
pub type Key = (i64, pg_sys::Oid);

/// What a policy was read from, and what was seen of it since. Another reading of the same policy is
/// as good, so all are equal.
#[derive(Clone, Debug)]
pub struct Reading {
    /// How often the catalogue had changed.
    pub changes: u64,
    /// The version of the policy's row.
    pub version: String,
    /// How often it had changed when the policy's words were seen to stand for what they did.
    pub understood_at: Cell<Option<u64>>,
    /// What is to be kept of them instead of what was.
    pub to_keep: Cell<Option<Kept>>,
}

impl Reading {
    pub fn new(changes: u64, version: String) -> Reading {
        Reading { changes, version, understood_at: Cell::default(), to_keep: Cell::default() }
    }

    /// Whether there is something to keep.
    pub fn has_news(&self) -> bool {
        self.to_keep.get().is_some()
    }
}

impl PartialEq for Reading {
    fn eq(&self, _other: &Reading) -> bool {
        true
    }
}

impl Eq for Reading {}

/// One table that holds rows of a policy: the watched table itself, or a leaf of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub policy: i64,
    pub relation: pg_sys::Oid,
    /// The watched table.
    pub root: pg_sys::Oid,
    pub reading: Reading,
    /// Its name, qualified, and quoted where it must be.
    pub name: String,
    /// What it is called in reports: by its name and, where other policies watch it too, by this one.
    pub called: String,
    pub owner: pg_sys::Oid,
    /// What is due in it, or why it cannot be swept now.
    pub watched: Result<Watched, Refusal>,
    pub enabled: bool,
    /// The policy's own settings, where it has any.
    pub batch_size: Option<usize>,
    /// The most rows reaped in a second.
    pub rate_limit: Option<u32>,
    pub sweep_interval: Option<Duration>,
    /// Zero: off.
    pub stuck_timeout: Option<Duration>,
}

impl Target {
    pub fn key(&self) -> Key {
        (self.policy, self.relation)
    }
}

/// What the words of a policy are about, its filter besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The watched table.
    pub root: pg_sys::Oid,
    /// The column that deadlines are counted from.
    pub column: String,
    /// What they stood for when they were given, as it is kept.
    pub meaning: Option<String>,
}

/// What a table is called in the statements that a filter is part of. By its own name a filter could
/// mean the whole row, where it names a column that is no more and was called as its table is.
pub const THE_ROW: &CStr = c"the row";

/// What is due in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub deadline: Deadline,
    /// A condition that due rows meet besides, as SQL over the table's own columns.
    pub filter: Option<String>,
    /// What it has of the barrier protocol, if it follows that: then each row is told of.
    pub barrier: Option<Shape>,
    /// What names the deadline and the filter, where that is up to the policy. What was remembered
    /// or planned while they stood for something else does not hold any more.
    pub given: Option<Given>,
}

impl Watched {
    /// The rows that are past a column of type `timestamptz`.
    pub fn column(column: &str) -> Watched {
        Watched { deadline: Deadline::column(column), filter: None, barrier: None, given: None }
    }

    /// Whether this may be an error that the filter raised for one row, where nothing else would raise
    /// any about rows.
    pub fn filter_raised(&self, failure: &Failure) -> bool {
        self.filter.is_some() && fault(&failure.sqlstate()) == Fault::Row
    }

    /// A statement of a sweep over `table`. `now` is when rows must be past their deadlines.
    pub fn statement(&self, template: &str, table: &str, now: ServerTime) -> String {
        self.statement_with(template, table, now, &[])
    }

    /// The same, with `more` to fill in.
    pub fn statement_with(
        &self,
        template: &str,
        table: &str,
        now: ServerTime,
        more: &[(&str, &str)],
    ) -> String {
        let filtered =
            self.filter.as_ref().map_or(String::new(), |filter| format!(" AND ({filter})"));
        let mut also = filtered.clone();
        if self.deadline.needs_recheck() {
            let (due, now) = (self.deadline.of_row(), iso(now));
            also += &format!(" AND {due} < '{now}'::pg_catalog.timestamptz");
        }
        let due = self.deadline.of_row();
        let own = [
            ("deadline", &*self.deadline.column),
            ("due", &due),
            ("filter", self.filter.as_deref().unwrap_or("true")),
            ("table", table),
            ("filtered", &filtered),
            ("also", &also),
        ];
        sql::filled(template, &[&own, more].concat())
    }

    /// The key before which rows are due at `now`, asked of PostgreSQL: within a transaction.
    pub fn bound(&self, now: ServerTime) -> Result<ServerTime, Failure> {
        if self.deadline.is_the_column() {
            return Ok(now);
        }
        let statement = format!("SELECT {}", self.deadline.bound("$1"));
        let key = self.deadline.column_type;
        let found = sql::query(&statement, &[Arg::Time(now)], |row| Ok(row.key(1, key)))?;
        required(found.into_iter().flatten().next(), "the bound")
    }
}
