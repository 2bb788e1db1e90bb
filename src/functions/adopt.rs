//! `pg_reaper_adopt()` and `pg_reaper_disown()`.

use super::{answer, watchable};
use crate::decide::refusal::Refusal;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::policies::{self, Policy};
use crate::server::sandbox::{self, Restriction};
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

/// The policy by which `relation` is watched as a table of barriers.
fn adopted(extension: &Extension, relation: pg_sys::Oid) -> Result<Option<Policy>, Failure> {
    let all = policies::of(extension, relation)?;
    Ok(all.into_iter().find(|policy| policy.barrier))
}

fn adopt(relation: pg_sys::Oid) -> Result<i64, Failure> {
    let extension = Extension::expect()?;
    let table = watchable::own(&extension, relation)?;
    if let Some(policy) = adopted(&extension, relation)? {
        return Err(Refusal::AlreadyAdopted { relation: table.name, policy: policy.id }.into());
    }
    table.check(relation)?;
    table.shape.clone()?;
    let statement = extension.sql(include_str!("../../sql/adopt/adopt.sql"));
    let ids = sandbox::as_owner(extension.author, Restriction::Full, || {
        sql::query(&statement, &[Arg::Oid(relation)], |row| required(row.int8(1), "id"))
    })?;
    match ids.first() {
        Some(id) => {
            table.advise_index(relation, "expires_at", None)?;
            Ok(*id)
        }
        // Somebody else adopted it in the meantime.
        None => {
            let policy = adopted(&extension, relation)?.map_or(0, |policy| policy.id);
            Err(Refusal::AlreadyAdopted { relation: table.name, policy }.into())
        }
    }
}

fn disown(relation: pg_sys::Oid) -> Result<(), Failure> {
    let extension = Extension::expect()?;
    let table = watchable::own(&extension, relation)?;
    match adopted(&extension, relation)? {
        None => Err(Refusal::NotAdopted { relation: table.name }.into()),
        Some(policy) if policy.builtin => Err(Refusal::BuiltIn { relation: table.name }.into()),
        Some(policy) => policies::forget(&extension, &[policy.id]),
    }
}
