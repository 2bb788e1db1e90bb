//! Whether a table can be watched, and whether the caller may decide about it.

use crate::decide::refusal::Refusal;
use crate::decide::shape::Shape;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::indexed::{self, By};
use crate::server::policies;
use crate::server::relation;
use crate::server::sandbox;
use crate::server::say;
use crate::server::sql::{self, Arg, required};
use pgrx::{PgSqlErrorCode, pg_sys};

/// What decides whether a table can be watched.
pub struct Facts {
    /// Its name, qualified, and quoted where it must be.
    pub name: String,
    kind: String,
    pub owner: pg_sys::Oid,
    temporary: bool,
    system: bool,
    /// It is a table of the extension.
    member: bool,
    /// What it has of the barrier protocol.
    pub shape: Result<Shape, Refusal>,
}

fn facts(extension: &Extension, relation: pg_sys::Oid) -> Result<Facts, Failure> {
    let statement = sql::statement(include_str!("../../sql/adopt/facts.sql"))
        .replace("@types@", &policies::type_expressions());
    let found = sql::query(&statement, &[Arg::Oid(relation), Arg::Oid(extension.oid)], |row| {
        let name = required(row.text(1), "name")?;
        Ok(Facts {
            kind: required(row.text(2), "kind")?,
            owner: required(row.oid(3), "owner")?,
            temporary: row.bool(4) == Some(true),
            system: row.bool(5) == Some(true),
            member: row.bool(6) == Some(true),
            shape: Shape::of(&name, &policies::columns(row, 7)),
            name,
        })
    })?;
    let missing = || Refusal::NoRelation { oid: relation.to_u32() };
    found.into_iter().next().ok_or_else(|| missing().into())
}

/// The facts of a table that the caller may decide about, held against a change of them.
pub fn own(extension: &Extension, relation: pg_sys::Oid) -> Result<Facts, Failure> {
    let known = facts(extension, relation)?;
    if !sandbox::may_act_for(sandbox::current_user(), known.owner) {
        return Err(Refusal::NotOwner { relation: known.name }.into());
    }
    // Under the lock once more: what a snapshot says of its owner may be old.
    match relation::lock(relation, pg_sys::AccessShareLock) {
        Some(now) if sandbox::may_act_for(sandbox::current_user(), now.owner) => {
            facts(extension, relation)
        }
        Some(now) => Err(Refusal::NotOwner { relation: now.name }.into()),
        None => Err(Refusal::NoRelation { oid: relation.to_u32() }.into()),
    }
}

impl Facts {
    /// Whether a table like this one can be watched at all.
    pub fn check(&self, relation: pg_sys::Oid) -> Result<(), Failure> {
        let name = self.name.clone();
        if !matches!(&*self.kind, "r" | "p") {
            let kind = policies::kind_name(&self.kind);
            return Err(Refusal::NotATable { relation: name, kind }.into());
        }
        if self.member {
            return Err(Refusal::OwnTable { relation: name }.into());
        }
        if self.system {
            return Err(Refusal::System { relation: name }.into());
        }
        if self.temporary {
            return Err(Refusal::Temporary { relation: name }.into());
        }
        let foreign = sql::statement(include_str!("../../sql/adopt/foreign_leaf.sql"));
        let leaf = |row: &sql::Row| required(row.text(1), "name");
        match sql::query(&foreign, &[Arg::Oid(relation)], leaf)?.into_iter().next() {
            Some(partition) => Err(Refusal::ForeignPartition { relation: name, partition }.into()),
            None => Ok(()),
        }
    }

    /// Warns of a table whose due rows no index leads to. `filter` is what lets rows of it be due.
    pub fn advise_index(
        &self,
        relation: pg_sys::Oid,
        column: &str,
        filter: Option<&str>,
    ) -> Result<(), Failure> {
        let (name, quoted) = (&self.name, sql::quote_identifier(column));
        if indexed::by(relation, &quoted, filter)? != By::Nothing {
            return Ok(());
        }
        // PostgreSQL cannot make an index of a partitioned table concurrently.
        let how = if self.kind == "p" { "" } else { " CONCURRENTLY" };
        let hint = format!(
            "Rows that are due are found by a slow scan; run CREATE INDEX{how} ON {name} ({quoted});"
        );
        let message = format!("table {name} has no index that leads with {quoted}");
        say::warn_hint(PgSqlErrorCode::ERRCODE_WARNING, &message, &hint);
        Ok(())
    }
}
