//! A policy as it was just written, looked at: whether each setting is valid, and what its words stand
//! for.

use super::watchable::{self, Facts};
use crate::decide::meaning::{Kept, Words};
use crate::decide::refusal::Refusal;
use crate::server::clock::server_now;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::filter::{self, Names};
use crate::server::meaning;
use crate::server::policies;
use crate::server::sandbox::{self, Restriction};
use crate::server::settings::MOST_ROWS;
use crate::server::sql::{self, Arg, Row};
use crate::server::target::Given;
use crate::server::transaction::in_subtransaction;
use pgrx::pg_sys;
use std::ffi::CString;

/// Looks at a policy as it was written, spells out its filter, and advises. `path` is what the
/// names of a filter just written are looked up by.
pub fn settle(
    extension: &Extension,
    policy: i64,
    relation: pg_sys::Oid,
    path: Option<&CString>,
    column_is_new: bool,
) -> Result<(), Failure> {
    let table = watchable::own(extension, relation)?;
    let statement = extension
        .sql(include_str!("../../sql/policy/facts.sql"))
        .replace("@most@", &MOST_ROWS.to_string())
        .replace("@type@", &policies::type_expression("p.expires_column"));
    let read = |row: &Row| {
        let column = row.text(2);
        let meaning = row.text(16);
        let given = column.map(|column| Given { root: relation, column, meaning });
        Ok((invalid(row, &table.name), given, row.text(12)))
    };
    let found = sandbox::as_owner(extension.author, Restriction::Full, || {
        sql::query(&statement, &[Arg::Int8(policy)], read)
    })?;
    let Some((invalid, given, mut filter)) = found.into_iter().next() else {
        return Err(Refusal::NoPolicy { policy }.into());
    };
    invalid?;
    let Some(given) = given else { return countable(extension, policy) };
    if let Some(written) = &filter {
        let names = path.map_or(Names::Qualified, |path| Names::Path(path));
        filter = Some(filter::spelt_out(relation, &table.name, table.owner, written, names)?);
    }
    let new = Words { column: column_is_new, filter: path.is_some() };
    keep(extension, policy, &table, &given, filter.as_deref(), new)?;
    countable(extension, policy)?;
    match column_is_new {
        true => table.advise_index(relation, &given.column, filter.as_deref()),
        false => Ok(()),
    }
}

/// Keeps the words of a policy, and what they stand for. Those that are not `new` must stand for what
/// they did.
fn keep(
    extension: &Extension,
    policy: i64,
    table: &Facts,
    given: &Given,
    filter: Option<&str>,
    new: Words,
) -> Result<(), Failure> {
    let now = meaning::of(given.root, &table.name, table.owner, given, filter)?;
    let kept = given.meaning.as_deref().and_then(Kept::read);
    let kept = Kept::after(kept, now, new)
        .map_err(|lost| meaning::lost(lost, policy, &table.name, given, filter))?;
    let statement = extension
        .sql("UPDATE @schema@.pg_reaper_policy SET filter = $2, meaning = $3 WHERE id = $1");
    let filter = filter.map_or(Arg::Raw(pg_sys::TEXTOID, None), Arg::Text);
    let args = [Arg::Int8(policy), filter, Arg::Text(&kept.to_string())];
    sandbox::as_owner(extension.author, Restriction::Full, || sql::execute(&statement, &args))?;
    Ok(())
}

/// Which setting of a policy is invalid, from the row of `facts.sql`.
fn invalid(row: &Row, table: &str) -> Result<(), Refusal> {
    let barrier = row.bool(1) == Some(true);
    let column = row.text(2);
    if barrier {
        let given = [
            ("ttl", row.bool(13) == Some(true)),
            ("filter", row.text(12).is_some()),
            ("time_zone", row.bool(14) == Some(true)),
        ];
        if let Some((setting, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(Refusal::OfExpiryOnly { setting });
        }
    } else if row.bool(15) == Some(true) {
        return Err(Refusal::OfBarriersOnly { setting: "stuck_timeout" });
    }
    let settings = [
        (4, "ttl", "an interval that is finite and not negative"),
        (5, "time_zone", "the name of a time zone, as pg_timezone_names lists them"),
        (6, "batch_size", "from 1 to 100000 rows"),
        (7, "rate_limit", "one row a second or more"),
        (8, "sweep_interval", "longer than nothing and at most a year"),
        (9, "stuck_timeout", "an interval that is not negative, or 0 for none"),
        (10, "name", "a name of one character or more"),
    ];
    for (n, setting, wanted) in settings {
        if let Some(value) = row.text(n) {
            return Err(Refusal::InvalidSetting { setting, value, wanted });
        }
    }
    if !barrier {
        let column = column.unwrap_or_default();
        policies::deadline_type(table, &column, row.text(3), row.bool(14) == Some(true))?;
    }
    Ok(())
}

/// Whether the deadlines of a policy can be counted: an interval may reach beyond all time.
fn countable(extension: &Extension, policy: i64) -> Result<(), Failure> {
    let loaded =
        sandbox::as_owner(extension.author, Restriction::Full, || policies::load(extension))?;
    for target in loaded.targets.iter().filter(|target| target.policy == policy) {
        let watched = target.watched.as_ref().map_err(Clone::clone)?;
        let now = server_now();
        let what = format!("deadlines of table {} cannot be counted", target.name);
        let hint = "Give a ttl of thousands of years at most.";
        in_subtransaction(|| watched.bound(now)).map_err(|failure| failure.of(&what, hint))?;
    }
    Ok(())
}
