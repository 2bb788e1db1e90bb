//! `pg_reaper_adopt()` and `pg_reaper_disown()`.

use super::answer;
use crate::decide::refusal::Refusal;
use crate::decide::shape::Shape;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::policies;
use crate::server::relation;
use crate::server::sandbox::{self, Restriction};
use crate::server::say;
use crate::server::sql::{self, Arg, required};
use pgrx::prelude::*;

/// Watches a table of the application that follows the barrier protocol. Returns its policy's id.
#[pg_extern(sql = false)]
fn pg_reaper_adopt(relation: pg_sys::Oid) -> i64 {
    answer(|| adopt(relation))
}

/// Stops watching it. The table stays as it is.
#[pg_extern(sql = false)]
fn pg_reaper_disown(relation: pg_sys::Oid) {
    answer(|| disown(relation))
}

/// What decides whether a table can be adopted.
struct Facts {
    name: String,
    kind: String,
    owner: pg_sys::Oid,
    temporary: bool,
    system: bool,
    /// It is a table of the extension.
    member: bool,
    shape: Result<Shape, Refusal>,
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
fn own(extension: &Extension, relation: pg_sys::Oid) -> Result<Facts, Failure> {
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

fn adopt(relation: pg_sys::Oid) -> Result<i64, Failure> {
    let extension = Extension::expect()?;
    let table = own(&extension, relation)?;
    if let Some(policy) = policies::find(&extension, relation)? {
        return Err(Refusal::AlreadyAdopted { relation: table.name, policy: policy.id }.into());
    }
    let name = table.name;
    if !matches!(&*table.kind, "r" | "p") {
        return Err(
            Refusal::NotATable { relation: name, kind: policies::kind_name(&table.kind) }.into()
        );
    }
    if table.member {
        return Err(Refusal::OwnTable { relation: name }.into());
    }
    if table.system {
        return Err(Refusal::System { relation: name }.into());
    }
    if table.temporary {
        return Err(Refusal::Temporary { relation: name }.into());
    }
    table.shape?;
    let foreign = sql::statement(include_str!("../../sql/adopt/foreign_leaf.sql"));
    let foreign = sql::query(&foreign, &[Arg::Oid(relation)], |row| required(row.text(1), "name"))?;
    if let Some(partition) = foreign.into_iter().next() {
        return Err(Refusal::ForeignPartition { relation: name, partition }.into());
    }
    let statement = extension.sql(include_str!("../../sql/adopt/adopt.sql"));
    let ids = sandbox::as_owner(extension.owner, Restriction::Full, || {
        sql::query(&statement, &[Arg::Oid(relation)], |row| required(row.int8(1), "id"))
    })?;
    match ids.first() {
        Some(id) => {
            advise_index(&name, relation)?;
            Ok(*id)
        }
        // Somebody else adopted it in the meantime.
        None => {
            let policy = policies::find(&extension, relation)?.map_or(0, |policy| policy.id);
            Err(Refusal::AlreadyAdopted { relation: name, policy }.into())
        }
    }
}

fn disown(relation: pg_sys::Oid) -> Result<(), Failure> {
    let extension = Extension::expect()?;
    let table = own(&extension, relation)?;
    match policies::find(&extension, relation)? {
        None => Err(Refusal::NotAdopted { relation: table.name }.into()),
        Some(policy) if policy.builtin => Err(Refusal::BuiltIn { relation: table.name }.into()),
        Some(policy) => sandbox::as_owner(extension.owner, Restriction::Full, || {
            policies::forget(&extension, &[policy.id])
        }),
    }
}

/// Warns of a table whose every sweep would read all of it.
fn advise_index(name: &str, relation: pg_sys::Oid) -> Result<(), Failure> {
    let statement = sql::statement(include_str!("../../sql/adopt/indexed.sql"));
    let indexed = sql::query(&statement, &[Arg::Oid(relation)], |row| Ok(row.bool(1)))?;
    if indexed != [Some(true)] {
        let hint = format!(
            "Every sweep reads the whole table; run CREATE INDEX CONCURRENTLY ON {name} (expires_at);"
        );
        let message = format!("table {name} has no index that leads with expires_at");
        say::warn_hint(PgSqlErrorCode::ERRCODE_WARNING, &message, &hint);
    }
    Ok(())
}
