//! Where the extension lives in this database.

use super::failure::Failure;
use super::kept;
use super::say;
use super::sql::{self, required};
use crate::decide::refusal::Refusal;
use crate::decide::version::{Skew, skew};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

/// The version of this library.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The extension as the catalogue has it now. A new value each time: it may be dropped, and
/// created again elsewhere, at any moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub oid: pg_sys::Oid,
    /// The name of its schema, quoted where it must be.
    schema: String,
    /// The lease table and its owner; `None`: somebody dropped it.
    pub lease_table: Option<(pg_sys::Oid, pg_sys::Oid)>,
    /// Who owns the table of policies, and so decides what is run as the owners of watched tables.
    pub author: pg_sys::Oid,
    /// Whether it has a table for the quarantine: older versions have none.
    pub has_quarantine: bool,
    /// Who owns it.
    pub owner: pg_sys::Oid,
    /// The version of its SQL.
    pub version: String,
}

impl Extension {
    /// Looks it up, in a transaction.
    pub fn find() -> Result<Option<Extension>, Failure> {
        let found =
            kept::query(&sql::statement(include_str!("../../sql/extension.sql")), &[], |row| {
                Ok(Extension {
                    oid: required(row.oid(1), "the extension")?,
                    schema: sql::quote_identifier(&required(row.text(2), "its schema")?),
                    lease_table: row.oid(3).zip(row.oid(7)),
                    author: row.oid(8).unwrap_or(pg_sys::InvalidOid),
                    owner: required(row.oid(4), "its owner")?,
                    version: required(row.text(5), "its version")?,
                    has_quarantine: row.bool(6) == Some(true),
                })
            })?;
        Ok(found.into_iter().next())
    }

    /// As [`Extension::find`], where there must be one.
    pub fn any() -> Result<Extension, Failure> {
        Extension::find()?.ok_or_else(|| Refusal::NoExtension.into())
    }

    /// As [`Extension::any`], of a version that this library knows.
    pub fn expect() -> Result<Extension, Failure> {
        let extension = Extension::any()?;
        match extension.skew() {
            Skew::SqlNewer => {
                Err(Refusal::Outdated { sql: extension.version, library: LIBRARY }.into())
            }
            Skew::SqlOlder | Skew::None => Ok(extension),
        }
    }

    /// How its SQL compares with this library.
    pub fn skew(&self) -> Skew {
        skew(&self.version, LIBRARY)
    }

    /// Says how its SQL compares with this library, and what to do.
    pub fn tell(&self, skew: Skew, database: &str) {
        let (level, hint) = match skew {
            Skew::None => (PgLogLevel::LOG, None),
            Skew::SqlOlder => (
                PgLogLevel::LOG,
                Some("All that it had goes on working; run ALTER EXTENSION pg_reaper UPDATE."),
            ),
            Skew::SqlNewer => (
                PgLogLevel::WARNING,
                Some(
                    "Nothing is reaped here until the server is restarted, so that it loads the new library.",
                ),
            ),
        };
        let message = format!(
            "pg_reaper: extension {} in database {database:?} is served by library {LIBRARY}",
            self.version
        );
        let code = PgSqlErrorCode::ERRCODE_WARNING;
        say::say(level, code, &message, None, hint);
    }

    /// A statement of ours with its tables qualified.
    pub fn sql(&self, template: &str) -> String {
        sql::statement(template).replace("@schema@", &self.schema)
    }
}
