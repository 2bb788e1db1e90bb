//! What is watched.

use super::changes;
use super::extension::Extension;
use super::failure::Failure;
use super::kept;
use super::sandbox::{self, Restriction, as_owner};
use super::sql::{self, Arg, Row, required};
use super::target::{Given, Reading, Target, Watched};
use crate::decide::deadline::{ColumnType, Deadline};
use crate::decide::order::children_first;
use crate::decide::refusal::Refusal;
use crate::decide::shape::{Column, Shape};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::time::Duration;

/// The columns of the barrier protocol.
const COLUMNS: [&str; 5] =
    ["execution_id", "expires_at", "organization_id", "remaining", "last_progress_at"];

/// All policies, as the catalogue has them now.
pub struct Policies {
    /// In the order to sweep them in.
    pub targets: Vec<Target>,
    /// Policies whose table was dropped.
    pub bereft: Vec<i64>,
}

/// The expressions that yield the type names of [`COLUMNS`] of the table `c`, null where there is
/// no such column.
pub fn type_expressions() -> String {
    COLUMNS.map(|column| type_expression(&format!("'{column}'"))).join(",\n  ")
}

/// The expression that yields the type name of the column of the table `c` that `name`, an
/// expression, names.
pub fn type_expression(name: &str) -> String {
    include_str!("../../sql/column_type.sql").replace("@column@", name)
}

/// The columns whose type names stand in `row` from column `first` on.
pub fn columns(row: &Row, first: usize) -> Vec<Column> {
    let column = |(n, name): (usize, &str)| {
        let type_name = row.text((first + n) as _)?;
        Some(Column { name: name.into(), type_name })
    };
    COLUMNS.into_iter().enumerate().filter_map(column).collect()
}

/// Reads them, in a transaction.
pub fn load(extension: &Extension) -> Result<Policies, Failure> {
    let statement = extension
        .sql(include_str!("../../sql/policies.sql"))
        .replace("@type@", &type_expression("p.expires_column"))
        .replace("@types@", &type_expressions())
        .replace("@trigger_of_another@", &trigger_of_another());
    // Before anything is read.
    let changes = changes::so_far();
    let mut policies = Policies { targets: vec![], bereft: vec![] };
    kept::query(&statement, &[], |row| {
        let policy = required(row.int8(1), "policy")?;
        let Some(kind) = row.text(5) else {
            if row.bool(2) != Some(true) {
                policies.bereft.push(policy);
            }
            return Ok(());
        };
        let name = required(row.text(6), "name")?;
        let owner = required(row.oid(4), "owner")?;
        let watched = match &*kind {
            _ if !sandbox::may_act_for(extension.author, owner) => {
                Err(Refusal::PolicyOfAnother { relation: name.clone() })
            }
            "r" => watched(row, &name),
            _ => Err(Refusal::NotATable { relation: name.clone(), kind: kind_name(&kind) }),
        };
        policies.targets.push(Target {
            policy,
            relation: required(row.oid(3), "relation")?,
            root: required(row.oid(21), "root")?,
            reading: Reading::new(changes, required(row.text(23), "version")?),
            called: name.clone(),
            name,
            owner,
            watched,
            enabled: row.bool(15) == Some(true),
            batch_size: row.int8(16).and_then(|rows| usize::try_from(rows).ok()),
            rate_limit: row.int8(17).and_then(|rows| u32::try_from(rows).ok()),
            sweep_interval: row.int8(18).map(duration),
            stuck_timeout: row.int8(19).map(duration),
        });
        Ok(())
    })?;
    tell_apart(&mut policies.targets);
    put_in_order(extension, &mut policies.targets)?;
    Ok(policies)
}

/// Whether a leaf has a trigger that its owner has not asked for, as SQL.
pub fn trigger_of_another() -> String {
    sql::statement(include_str!("../../sql/trigger_of_another.sql"))
}

/// Whether the policy of `target` is what it was when it was read: asked under the lock of the table,
/// for which whoever altered or dropped it meanwhile may have made us wait.
pub fn still_stands(extension: &Extension, target: &Target) -> Result<bool, Failure> {
    let statement = extension.sql(include_str!("../../sql/policy/version.sql"));
    let policy = [Arg::Int8(target.policy)];
    let now = sandbox::no_more_than(extension.author, || {
        kept::query_newest(&statement, &policy, |row| Ok(row.text(1)))
    })?;
    Ok(now.into_iter().flatten().next().as_ref() == Some(&target.reading.version))
}

/// Keeps what was seen of the words of the policy of `target`: what they stand for, where they were
/// given in a catalogue that is not this one, or that they have lost it; unless somebody alters it just
/// now.
pub fn keep_meaning(extension: &Extension, target: &Target) -> Result<(), Failure> {
    let Some(kept) = target.reading.to_keep.take() else { return Ok(()) };
    let statement = extension.sql(include_str!("../../sql/policy/keep_meaning.sql"));
    let args = [
        Arg::Int8(target.policy),
        Arg::Text(&target.reading.version),
        Arg::Text(&kept.to_string()),
    ];
    as_owner(extension.author, Restriction::Full, || sql::execute(&statement, &args))?;
    Ok(())
}

/// Has a table that several policies watch called by each of them.
fn tell_apart(targets: &mut [Target]) {
    let mut watching = HashMap::<_, u32>::new();
    for target in &*targets {
        *watching.entry(target.relation).or_default() += 1;
    }
    for target in targets.iter_mut().filter(|target| watching[&target.relation] > 1) {
        target.called = format!("{} (policy {})", target.name, target.policy);
    }
}

/// Puts the tables that hold foreign keys before those they point to.
fn put_in_order(extension: &Extension, targets: &mut [Target]) -> Result<(), Failure> {
    let mut ids: Vec<_> = targets.iter().map(|target| target.policy).collect();
    ids.dedup();
    if ids.len() < 2 {
        return Ok(());
    }
    let statement = extension.sql(include_str!("../../sql/foreign_keys.sql"));
    let keys = kept::query(&statement, &[], |row| {
        Ok((required(row.int8(1), "policy")?, required(row.int8(2), "policy")?))
    })?;
    if !keys.is_empty() {
        let order = children_first(&ids, &keys);
        targets.sort_by_key(|target| order.iter().position(|policy| *policy == target.policy));
    }
    Ok(())
}

/// What is due in the table `name`, from the row that [`load`] reads.
fn watched(row: &Row, name: &str) -> Result<Watched, Refusal> {
    if row.bool(22) == Some(true) {
        return Err(Refusal::TriggerOfAnother { relation: name.into() });
    }
    if row.text(7).as_deref() != Some("expiry") {
        let shape = Shape::of(name, &columns(row, 25))?;
        return Ok(Watched { barrier: Some(shape), ..Watched::column("expires_at") });
    }
    let (column, time_zone) = (row.text(8).unwrap_or_default(), row.text(13));
    let column_type = deadline_type(name, &column, row.text(10), time_zone.is_some())?;
    let deadline = Deadline {
        column: row.text(9).unwrap_or_default(),
        column_type,
        ttl: row.text(11),
        time_zone,
        months: row.bool(12) == Some(true),
    };
    let filter = row.text(14);
    if let (Some(_), Some(author), Some(owner)) = (&filter, row.oid(20), row.oid(4))
        && !sandbox::may_act_for(author, owner)
    {
        return Err(Refusal::FilterOfAnother { relation: name.into() });
    }
    let root = row.oid(21).unwrap_or(pg_sys::InvalidOid);
    let given = Some(Given { root, column, meaning: row.text(24) });
    Ok(Watched { deadline, filter, barrier: None, given })
}

/// What is counted from `column` of table `relation`, if it can be: the name of its type.
pub fn deadline_type(
    relation: &str,
    column: &str,
    found: Option<String>,
    has_time_zone: bool,
) -> Result<ColumnType, Refusal> {
    let (relation, column) = (relation.to_owned(), column.to_owned());
    let Some(found) = found else {
        return Err(Refusal::NoDeadline { relation, column });
    };
    match ColumnType::of(&found) {
        None => Err(Refusal::NotADeadline { relation, column, found }),
        Some(ColumnType::Timestamp | ColumnType::Date) if !has_time_zone => {
            Err(Refusal::NoTimeZone { relation, column, found })
        }
        Some(column_type) => Ok(column_type),
    }
}

/// Microseconds as a duration; none for less than none.
fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// What a `relkind` is called.
pub fn kind_name(kind: &str) -> &'static str {
    match kind {
        "r" => "a table",
        "p" => "a partitioned table",
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        "i" | "I" => "an index",
        "S" => "a sequence",
        "c" => "a composite type",
        "t" => "a TOAST table",
        _ => "another kind of relation",
    }
}

/// A policy, as far as it must be known to decide about it.
pub struct Policy {
    pub id: i64,
    /// The one that the extension came with.
    pub builtin: bool,
    /// It watches a table of barriers.
    pub barrier: bool,
    pub relation: pg_sys::Oid,
}

/// The policies of `relation`, which the caller may have no right to look up.
pub fn of(extension: &Extension, relation: pg_sys::Oid) -> Result<Vec<Policy>, Failure> {
    look_up(extension, "relation OPERATOR(pg_catalog.=) $1", Arg::Oid(relation))
}

/// The policy `id`, likewise.
pub fn by_id(extension: &Extension, id: i64) -> Result<Option<Policy>, Failure> {
    let found = look_up(extension, "id OPERATOR(pg_catalog.=) $1", Arg::Int8(id))?;
    Ok(found.into_iter().next())
}

fn look_up(extension: &Extension, condition: &str, arg: Arg) -> Result<Vec<Policy>, Failure> {
    let statement = extension.sql(
        "SELECT id, builtin, kind OPERATOR(pg_catalog.=) 'barrier', relation \
         FROM @schema@.pg_reaper_policy WHERE ",
    ) + condition;
    as_owner(extension.author, Restriction::Full, || {
        sql::query(&statement, &[arg], |row| {
            Ok(Policy {
                id: required(row.int8(1), "id")?,
                builtin: row.bool(2) == Some(true),
                barrier: row.bool(3) == Some(true),
                relation: required(row.oid(4), "relation")?,
            })
        })
    })
}

/// Ends policies: their table is gone, or was disowned.
pub fn forget(extension: &Extension, bereft: &[i64]) -> Result<(), Failure> {
    let statement =
        extension.sql("DELETE FROM @schema@.pg_reaper_policy WHERE id OPERATOR(pg_catalog.=) $1");
    as_owner(extension.author, Restriction::Full, || {
        bereft
            .iter()
            .try_for_each(|policy| sql::execute(&statement, &[Arg::Int8(*policy)]).map(|_| ()))
    })
}

/// Whether `relation` has constraints that are deferred unless told otherwise.
pub fn has_deferred_constraints(relation: pg_sys::Oid) -> Result<bool, Failure> {
    let statement = sql::statement(include_str!("../../sql/deferred.sql"));
    let found = sql::query(&statement, &[Arg::Oid(relation)], |row| Ok(row.bool(1)))?;
    Ok(found == [Some(true)])
}

/// What `relation` is called, or its number when there is none such.
pub fn name_of(relation: pg_sys::Oid) -> Result<String, Failure> {
    let statement = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) \
                     FROM pg_catalog.pg_class c \
                     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
                     WHERE c.oid OPERATOR(pg_catalog.=) $1";
    let found = sql::query(statement, &[Arg::Oid(relation)], |row| required(row.text(1), "name"))?;
    Ok(found.into_iter().next().unwrap_or_else(|| relation.to_u32().to_string()))
}
