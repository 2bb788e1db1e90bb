//! What this process holds and must give back when it ends, however it ends.

use super::extension::Extension;
use super::failure::Failure;
use super::transaction::in_transaction;
use super::{lease_lock, lease_row};
use crate::decide::config::Leadership as Kind;
use crate::decide::lease::{Sight, Term};
use pgrx::{PgLogLevel, log, warning};
use std::cell::RefCell;
use std::time::Duration;

/// A term that is held, as it must be known to give it back.
#[derive(Clone)]
pub struct Held {
    pub extension: Extension,
    pub kind: Kind,
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
    let term = named(&held.term);
    match in_transaction(|| give_back(&held)) {
        Ok(true) => log!("pg_reaper released {term}: {why}"),
        Ok(false) => warning!(
            "pg_reaper could not release {term}, since its row is locked or not ours any more; \
             another worker can take it after {window:?}"
        ),
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
    if held.kind == Kind::Advisory {
        return Ok(lease_lock::ensure(&held.extension) && lease_lock::release(&held.extension));
    }
    match lease_row::lock(&held.extension)? {
        Sight::Row(row) if held.term.holds(&held.me, &row) => {
            lease_row::release(&held.extension, &held.me, &held.term)
        }
        _ => Ok(false),
    }
}

/// What a term is called in the log.
pub fn named(term: &Term) -> String {
    match term.number {
        0 => "the leadership lock".into(),
        number => format!("term {number}"),
    }
}
