//! The table that holds the lease: pg_reaper's own, or another one that it shares with an outside
//! reaper while people move over (`pg_reaper.lease_table`).
//!
//! A shared table has the columns `leader` and `acquired_at`, and no term: there a leader is known
//! by an id that is new with every acquisition. It belongs to somebody else, whose triggers and
//! constraints run with its updates, so those are made in the sandbox, and in bounded time.

use super::extension::Extension;
use super::failure::Failure;
use super::kept;
use super::sandbox::{Restriction, as_owner, no_more_than};
use super::sql::{self, Arg, required};
use crate::decide::refusal::Refusal;
use pgrx::pg_sys;

/// Where the lease lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTable {
    pub oid: pg_sys::Oid,
    /// Its name, qualified, and quoted where it must be.
    pub name: String,
    owner: pg_sys::Oid,
    /// It is another's, and has no terms.
    pub shared: bool,
}

impl LeaseTable {
    /// The table of pg_reaper's own; `None`: it was dropped.
    pub fn own(extension: &Extension) -> Option<LeaseTable> {
        extension.lease_table.map(|(oid, owner)| LeaseTable {
            oid,
            name: extension.sql("@schema@.pg_reaper_lease"),
            owner,
            shared: false,
        })
    }

    /// The table that `setting` names; `None`: there is none such now. In a transaction.
    pub fn shared(setting: &str) -> Result<Option<LeaseTable>, Failure> {
        let statement = sql::statement(include_str!("../../sql/lease/find_shared.sql"));
        let found = kept::query(&statement, &[Arg::Text(setting)], |row| {
            let name = required(row.text(2), "name")?;
            if row.bool(4) != Some(true) {
                return Err(Refusal::NotALease { relation: name }.into());
            }
            Ok(LeaseTable {
                oid: required(row.oid(1), "relation")?,
                name,
                owner: required(row.oid(3), "owner")?,
                shared: true,
            })
        })?;
        Ok(found.into_iter().next())
    }

    /// A statement with the table and its term filled in.
    pub fn sql(&self, template: &str) -> String {
        let term = if self.shared { "0::pg_catalog.int8" } else { "term" };
        sql::statement(template).replace("@lease@", &self.name).replace("@term@", term)
    }

    /// Runs a statement on the table, as who may be trusted with it.
    pub fn act<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        match self.shared {
            true => as_owner(self.owner, Restriction::Full, work),
            false => no_more_than(self.owner, work),
        }
    }

    /// Whether it is still what it was when it was found. It must be locked.
    pub fn is(&self, now: &super::relation::Now) -> bool {
        now.owner == self.owner && now.name == self.name
    }
}
