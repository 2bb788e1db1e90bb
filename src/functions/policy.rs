//! `pg_reaper_add_policy()`, `pg_reaper_alter_policy()` and `pg_reaper_drop_policy()`.
//!
//! What is asked for is written first and looked at as it then stands: whatever is wrong with it
//! raises an error, which takes the row back. So both functions check the same, and the values
//! never leave PostgreSQL, whose types and encodings they are of.

use super::settle::settle;
use super::{answer, watchable};
use crate::decide::refusal::Refusal;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::policies::{self, Policy};
use crate::server::sandbox::{self, Restriction};
use crate::server::sql::{self, Arg, required};
use pgrx::prelude::*;
use std::ffi::CString;

const ADD: [pg_sys::Oid; 10] = [
    pg_sys::OIDOID,
    pg_sys::NAMEOID,
    pg_sys::INTERVALOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INTERVALOID,
    pg_sys::TEXTOID,
    pg_sys::BOOLOID,
];

const ALTER: [pg_sys::Oid; 12] = [
    pg_sys::INT8OID,
    pg_sys::NAMEOID,
    pg_sys::INTERVALOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INTERVALOID,
    pg_sys::TEXTOID,
    pg_sys::INTERVALOID,
    pg_sys::BOOLOID,
    pg_sys::TEXTARRAYOID,
];

/// Where `enabled` is among the parameters of `ALTER`.
const ENABLED: usize = 10;

/// What a policy can be without; the names that `reset` knows.
const OPTIONAL: [&str; 8] = [
    "ttl",
    "filter",
    "name",
    "batch_size",
    "rate_limit",
    "sweep_interval",
    "time_zone",
    "stuck_timeout",
];

/// Watches a table by one of its columns. Returns the policy's id. `sql/functions.sql` declares
/// the parameters.
#[pg_extern(sql = false)]
fn pg_reaper_add_policy(call: pg_sys::FunctionCallInfo) -> i64 {
    let path = callers_path();
    answer(|| add(&arguments(call, &ADD), &path))
}

/// Changes a policy: NULL leaves a setting as it is, `reset` names those that go back to none.
#[pg_extern(sql = false)]
fn pg_reaper_alter_policy(call: pg_sys::FunctionCallInfo) {
    let path = callers_path();
    answer(|| alter(&arguments(call, &ALTER), &path));
}

/// Ends a policy. Its table stays as it is.
#[pg_extern(sql = false)]
fn pg_reaper_drop_policy(policy: i64) {
    answer(|| {
        let extension = Extension::expect()?;
        let known = own(&extension, policy)?;
        if known.builtin {
            return Err(Refusal::BuiltIn { relation: policies::name_of(known.relation)? }.into());
        }
        policies::forget(&extension, &[policy])
    });
}

/// The `search_path` by which the caller's words are understood.
fn callers_path() -> CString {
    // SAFETY: the value of a setting, NUL-terminated.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::namespace_search_path) }.to_owned()
}

/// The arguments of a call, as PostgreSQL has them.
fn arguments(call: pg_sys::FunctionCallInfo, types: &[pg_sys::Oid]) -> Vec<Arg<'static>> {
    let argument = |(n, type_oid): (usize, &pg_sys::Oid)| {
        // SAFETY: sql/functions.sql declares as many parameters as there are types, and of these
        // types.
        Arg::Raw(*type_oid, unsafe { pgrx::pg_getarg_datum(call, n) })
    };
    types.iter().enumerate().map(argument).collect()
}

fn add(args: &[Arg], path: &CString) -> Result<i64, Failure> {
    let extension = Extension::expect()?;
    let Arg::Raw(_, Some(relation)) = args[0] else {
        return Err(Refusal::NothingNamed { parameter: "relation" }.into());
    };
    if matches!(args[1], Arg::Raw(_, None)) {
        return Err(Refusal::NothingNamed { parameter: "expires_column" }.into());
    }
    let relation = pg_sys::Oid::from(relation.value() as u32);
    watchable::own(&extension, relation)?.check(relation)?;
    refuse_a_name_taken(&extension, &args[4], 0)?;
    let statement = extension.sql(include_str!("../../sql/policy/add.sql"));
    let ids = sandbox::as_owner(extension.author, Restriction::Full, || {
        sql::query(&statement, args, |row| required(row.int8(1), "id"))
    })?;
    let id = required(ids.first().copied(), "id")?;
    settle(&extension, id, relation, Some(path), true)?;
    Ok(id)
}

fn alter(args: &[Arg], path: &CString) -> Result<(), Failure> {
    let extension = Extension::expect()?;
    let Arg::Raw(_, Some(policy)) = args[0] else {
        return Err(Refusal::NothingNamed { parameter: "policy" }.into());
    };
    let policy = policy.value() as i64;
    let known = own(&extension, policy)?;
    let given = |n: &usize| matches!(args[*n], Arg::Raw(_, Some(_)));
    let column_is_new = given(&1);
    if known.barrier && column_is_new {
        return Err(Refusal::OfExpiryOnly { setting: "expires_column" }.into());
    }
    refuse_a_name_taken(&extension, &args[4], policy)?;
    refuse_what_cannot_be_reset(&args[11])?;
    let statement = extension.sql(include_str!("../../sql/policy/alter.sql"));
    let written = matches!(args[3], Arg::Raw(_, Some(_)));
    sandbox::as_owner(extension.author, Restriction::Full, || sql::execute(&statement, args))?;
    let off = matches!(args[ENABLED], Arg::Raw(_, Some(on)) if on.value() & 1 == 0);
    if off && (1..args.len()).filter(given).eq([ENABLED]) {
        // A policy that is broken can be switched off, whatever it is that is broken.
        return Ok(());
    }
    settle(&extension, policy, known.relation, written.then_some(path), column_is_new)
}

/// A policy that the caller may decide about.
fn own(extension: &Extension, policy: i64) -> Result<Policy, Failure> {
    let known = policies::by_id(extension, policy)?.ok_or(Refusal::NoPolicy { policy })?;
    watchable::own(extension, known.relation)?;
    Ok(known)
}

/// Refuses a name that another policy than `own` has.
fn refuse_a_name_taken(extension: &Extension, name: &Arg, own: i64) -> Result<(), Failure> {
    let statement = extension
        .sql("SELECT id, name FROM @schema@.pg_reaper_policy WHERE name = $1 AND id <> $2");
    let args = [name.clone(), Arg::Int8(own)];
    let taken = sandbox::as_owner(extension.author, Restriction::Full, || {
        sql::query(&statement, &args, |row| {
            Ok(Refusal::NameTaken {
                policy: required(row.int8(1), "id")?,
                name: required(row.text(2), "name")?,
            })
        })
    })?;
    taken.into_iter().next().map_or(Ok(()), |refusal| Err(refusal.into()))
}

fn refuse_what_cannot_be_reset(reset: &Arg) -> Result<(), Failure> {
    let named =
        sql::query("SELECT unnest($1)", std::slice::from_ref(reset), |row| Ok(row.text(1)))?;
    match named.into_iter().flatten().find(|name| !OPTIONAL.contains(&name.as_str())) {
        Some(name) => Err(Refusal::NotOptional { name, known: OPTIONAL.join(", ") }.into()),
        None => Ok(()),
    }
}
