//! What this process holds and must give back when it ends, however it ends.

use super::extension::Extension;
use super::failure::Failure;
use super::lease_table::LeaseTable;
use super::transaction::in_transaction;
use super::{lease_lock, lease_row, say, timeouts};
use crate::decide::config::Leadership as Kind;
use crate::decide::lease::{Sight, Term};
use pgrx::PgLogLevel;
use std::cell::RefCell;
use std::time::Duration;

/// What leadership is about.
#[derive(Clone)]
pub struct Object {
    pub extension: Extension,
    pub kind: Kind,
    /// What `pg_reaper.lease_table` says.
    pub setting: String,
    /// The table of the lease; `None` under a session lock, and where the table is missing.
    pub table: Option<LeaseTable>,
}

impl Object {
    /// Whether `other` is the same one, whatever its table is called now.
    pub fn is(&self, other: &Object) -> bool {
        let table = |object: &Object| object.table.as_ref().map(|table| table.oid);
        self.extension.oid == other.extension.oid
            && self.kind == other.kind
            && table(self) == table(other)
    }

    /// Whether its table is another's.
    pub fn shared(&self) -> bool {
        self.table.as_ref().is_some_and(|table| table.shared)
    }

    /// What a term of it is called in the log.
    pub fn named(&self, term: &Term) -> String {
        match (&self.kind, &self.table) {
            (Kind::Advisory, _) => "the leadership lock".into(),
            (_, Some(table)) if table.shared => format!("the lease {}", table.name),
            _ => format!("term {}", term.number),
        }
    }
}

/// A term that is held, as it must be known to give it back.
#[derive(Clone)]
pub struct Held {
    pub object: Object,
    pub me: String,
    pub term: Term,
    pub lease_duration: Duration,
}

thread_local! {
    /// What this process must give back when it ends, however it ends: kept apart from
    /// [`Leadership`], which may be in use by the very frames that the end cuts off.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Notes what is held now.
pub fn hold(held: Option<Held>) {
    HELD.set(held);
}

/// Gives back whatever this process holds. Also at its end, outside any transaction.
pub fn release_held(why: &str) {
    let Some(held) = HELD.take() else { return };
    let window = held.lease_duration;
    let term = held.object.named(&held.term);
    match timeouts::release(held.object.shared(), window / 3, || in_transaction(|| give_back(&held))) {
        Ok(true) => say::log(format!("pg_reaper released {term}: {why}")),
        Ok(false) => say::warn(format!(
            "pg_reaper could not release {term}, since its row is locked or not ours any more; \
             another worker can take it after {window:?}"
        )),
        Err(failure) => failure.report_as(
            PgLogLevel::WARNING,
            format!(
                "pg_reaper could not release {term}, another worker can take it after {window:?}: {}",
                failure.message
            ),
        ),
    }
}

fn give_back(held: &Held) -> Result<bool, Failure> {
    let Object { extension, kind, table, .. } = &held.object;
    if *kind == Kind::Advisory {
        return Ok(lease_lock::ensure(extension) && lease_lock::release(extension));
    }
    let Some(table) = table else { return Ok(false) };
    match lease_row::lock(table)? {
        Sight::Row(row) if held.term.holds(&held.me, &row) => {
            lease_row::release(table, &held.me, &held.term)
        }
        _ => Ok(false),
    }
}
