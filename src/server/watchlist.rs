//! The policies as they were read last, for as long as they hold: with many policies it takes longer
//! to read them all than to visit the one table that has something due.

use super::changes;
use super::extension::Extension;
use super::failure::Failure;
use super::kept;
use super::policies::{self, Policies};
use super::sandbox::no_more_than;
use super::transaction::in_transaction;
use crate::decide::Ticks;
use std::rc::Rc;
use std::time::Duration;

/// What was read, and of what.
struct Reading {
    policies: Rc<Policies>,
    of: State,
    at: Ticks,
}

/// Should anything change that we are not told of, it is seen by then all the same.
const LONGEST: Duration = Duration::from_secs(60);

/// What the policies were made of.
#[derive(PartialEq)]
struct State {
    extension: Extension,
    /// How often the catalogue had changed.
    changes: u64,
    /// The rows of the policies: a row that was changed is another version, at another place or by
    /// another transaction. By hand, by a restore, in SQL of any version: it makes no difference.
    rows: Option<String>,
}

#[derive(Default)]
pub struct Watchlist(Option<Reading>);

impl Watchlist {
    /// The policies as they are now, in the cycle that `began` then.
    pub fn read(&mut self, extension: &Extension, began: Ticks) -> Result<Rc<Policies>, Failure> {
        let read = || {
            // Before anything else is read: what changes meanwhile is seen by the next cycle.
            let of = State {
                extension: extension.clone(),
                changes: changes::so_far(),
                rows: rows(extension)?,
            };
            match &self.0 {
                Some(last) if last.of == of && began < last.at + LONGEST => {
                    Ok(Rc::clone(&last.policies))
                }
                _ => {
                    let policies = Rc::new(policies::load(extension)?);
                    self.0 = Some(Reading { policies: Rc::clone(&policies), of, at: began });
                    Ok(policies)
                }
            }
        };
        in_transaction(|| no_more_than(extension.author, read))
    }
}

fn rows(extension: &Extension) -> Result<Option<String>, Failure> {
    let statement = extension.sql(include_str!("../../sql/policy/rows.sql"));
    let found = kept::query(&statement, &[], |row| Ok(row.text(1)))?;
    Ok(found.into_iter().flatten().next())
}
