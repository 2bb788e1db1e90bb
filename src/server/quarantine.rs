//! The quarantine as it is written down, in `pg_reaper_quarantine`.
//!
//! What passes go by is in memory, [`crate::decide::quarantine`]; the table is for people, and for
//! the next worker. It is written once a visit, in a batch of its own.

use super::batch::PATIENCE;
use super::clock::iso;
use super::extension::Extension;
use super::failure::Failure;
use super::kept;
use super::orphans;
use super::pass::{Host, Limits, Stop};
use super::reaper::{item_pointer, tid};
use super::sandbox::{Restriction, as_owner, with_lock_timeout};
use super::say;
use super::sql::{self, Arg, required};
use super::target::{Target, Watched};
use super::transaction::in_subtransaction;
use crate::decide::ahead::Tid;
use crate::decide::orphan::{Rule, ascii};
use crate::decide::progress::Pass;
use crate::decide::quarantine::{Held, News, Quarantine};
use crate::decide::{ServerTime, advice};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};
use std::collections::BTreeMap;

/// The longest error that is kept, in characters.
const LONGEST_ERROR: usize = 2_000;

/// What is said of a row: its primary key as JSON, and when it was due.
struct Said {
    key: String,
    deadline: ServerTime,
}

/// What is written of the rows of `target`: how often they have failed, and their next try.
fn written(
    extension: &Extension,
    target: &Target,
) -> Result<BTreeMap<Tid, (u32, ServerTime)>, Failure> {
    let statement = extension.sql(include_str!("../../sql/quarantine/load.sql"));
    let of = [Arg::Int8(target.policy), Arg::Oid(target.relation)];
    let rows = as_owner(extension.owner, Restriction::Full, || {
        sql::query(&statement, &of, |row| {
            let tries = u32::try_from(required(row.int8(2), "tries")?).unwrap_or(u32::MAX);
            let next_try = required(row.int8(3), "the next try")?;
            Ok((tid(required(row.tid(1), "tid")?), (tries, next_try)))
        })
    })?;
    Ok(rows.into_iter().collect())
}

/// The rows of `target` that passes go round at `now`, in a transaction.
pub fn waiting(
    extension: &Extension,
    target: &Target,
    now: ServerTime,
) -> Result<Vec<pg_sys::ItemPointerData>, Failure> {
    if !extension.has_quarantine {
        return Ok(vec![]);
    }
    let rows = written(extension, target)?.into_iter();
    Ok(rows
        .filter(|(_, (_, next_try))| *next_try > now)
        .map(|(tid, _)| item_pointer(tid))
        .collect())
}

/// The rows of `target` in quarantine that are still where they were.
pub fn load<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
) -> Result<Quarantine, Failure> {
    let extension = host.extension().clone();
    if !extension.has_quarantine {
        return Ok(Quarantine::default());
    }
    let restriction = host.restriction(target.owner);
    host.read(target, || {
        let mut tries = written(&extension, target)?;
        if tries.is_empty() {
            return Ok(Quarantine::default());
        }
        let template = include_str!("../../sql/quarantine/where.sql");
        let statement = watched.statement(template, &target.name, 0);
        let tids: Vec<_> = tries.keys().copied().map(item_pointer).collect();
        let found = as_owner(target.owner, restriction, || {
            sql::query(&statement, &[Arg::Tids(&tids)], |row| {
                let tid = tid(required(row.tid(1), "ctid")?);
                Ok((tid, row.key(2, watched.deadline.column_type)))
            })
        })?;
        let held = found.into_iter().filter_map(|(tid, deadline)| {
            let deadline = deadline?;
            let (tries, next_try) = tries.remove(&tid)?;
            Some((tid, Held { deadline, tries, next_try }))
        });
        let held: BTreeMap<_, _> = held.collect();
        Ok(Quarantine::of(held, tries.into_keys().collect()))
    })
}

/// Writes down what has changed, and tells of rows that are new in quarantine, as far as the limit of
/// the pass goes. Where somebody else is writing about them, it is left for the next visit.
pub fn record<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
    rule: Rule,
    limits: &Limits,
    pass: &mut Pass,
    quarantine: &mut Quarantine,
) -> Result<(), Stop> {
    loop {
        let news = quarantine.take_news();
        if news.is_empty() || !host.extension().has_quarantine {
            return Ok(());
        }
        let extension = host.extension().clone();
        let restriction = host.restriction(target.owner);
        let outcome = host.batch(target, true, || {
            let said = as_owner(target.owner, restriction, || read(target, watched, rule, &news))?;
            as_owner(extension.owner, Restriction::Full, || {
                with_lock_timeout(PATIENCE, || write(&extension, target, &news, &said))
            })?;
            Ok(said)
        });
        match outcome {
            Ok(said) => tell(target, limits.log_limit, pass, &news, &said),
            Err(stop) => {
                quarantine.put_back(news);
                return match stop {
                    Stop::Failed(failure) if !failure.is_lock() => Err(Stop::Failed(failure)),
                    _ => Ok(()),
                };
            }
        }
    }
}

/// Reads what is said of the rows that failed, as the owner.
fn read(
    target: &Target,
    watched: &Watched,
    rule: Rule,
    news: &News,
) -> Result<BTreeMap<Tid, Said>, Failure> {
    if news.failed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let tids: Vec<_> = news.failed.keys().copied().map(item_pointer).collect();
    let statement = sql::statement(include_str!("../../sql/quarantine/key.sql"));
    let key = sql::query(&statement, &[Arg::Oid(target.relation)], |row| Ok(row.text(1)))?;
    let by_place = "'ctid', t.ctid::pg_catalog.text".to_owned();
    let key = key.into_iter().flatten().next().unwrap_or_else(|| by_place.clone());
    let rows = |key: &str| {
        let template = include_str!("../../sql/quarantine/rows.sql");
        let statement = watched.statement_with(template, &target.name, 0, &[("key", key)]);
        let said = sql::query(&statement, &[Arg::Tids(&tids)], |row| {
            let deadline = orphans::deadline(rule, required(row.int8(2), "deadline")?);
            let key = required(row.text(3), "key")?;
            Ok((tid(required(row.tid(1), "ctid")?), Said { key, deadline }))
        })?;
        Ok(said.into_iter().collect())
    };
    // A type of the owner's making may not let itself be written.
    in_subtransaction(|| rows(&key)).or_else(|failure| match failure.is_cancel() {
        true => Err(failure),
        false => rows(&by_place),
    })
}

/// Writes, as the owner of the extension. A row that is not there any more has nothing to be said of.
fn write(
    extension: &Extension,
    target: &Target,
    news: &News,
    said: &BTreeMap<Tid, Said>,
) -> Result<(), Failure> {
    let of = [Arg::Int8(target.policy), Arg::Oid(target.relation)];
    if !news.released.is_empty() {
        let tids: Vec<_> = news.released.iter().copied().map(item_pointer).collect();
        let statement = extension.sql(include_str!("../../sql/quarantine/take.sql"));
        let [policy, relation] = of.clone();
        sql::execute(&statement, &[policy, relation, Arg::Tids(&tids)])?;
    }
    let statement = extension.sql(include_str!("../../sql/quarantine/put.sql"));
    for (tid, said) in said {
        let Some((held, why)) = news.failed.get(tid) else { continue };
        let error: String = why.message.chars().take(LONGEST_ERROR).collect();
        let [policy, relation] = of.clone();
        let args = [
            policy,
            relation,
            Arg::Tid(item_pointer(*tid)),
            Arg::Text(&said.key),
            Arg::Time(said.deadline),
            Arg::Text(&error),
            Arg::Text(&why.sqlstate),
            Arg::Int8(i64::from(held.tries)),
            Arg::Time(held.next_try),
        ];
        kept::run(&statement, &args, |_| Ok(()))?;
    }
    Ok(())
}

/// Tells of rows that are new in quarantine, one by one up to the limit, then how many more.
fn tell(
    target: &Target,
    log_limit: usize,
    pass: &mut Pass,
    news: &News,
    said: &BTreeMap<Tid, Said>,
) {
    let name = &target.name;
    let fresh = news.failed.iter().filter(|(_, (held, _))| held.tries == 1);
    let fresh: Vec<_> =
        fresh.filter_map(|(tid, new)| said.get(tid).map(|said| (said, new))).collect();
    let one_by_one = fresh.len().min(log_limit.saturating_sub(pass.told));
    for (said, (held, why)) in &fresh[..one_by_one] {
        let detail = format!(
            "SQLSTATE {}. Policy {}. Next try at {}.",
            why.sqlstate,
            target.policy,
            iso(held.next_try)
        );
        say::say(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            &format!(
                "row {} of {name} cannot be reaped, and goes into quarantine: {}",
                ascii(&said.key),
                why.message
            ),
            Some(&detail),
            Some(advice::hint(&why.sqlstate)),
        );
    }
    pass.told += one_by_one;
    let more = fresh.len() - one_by_one;
    if more > 0 {
        let (s, go) = if more == 1 { ("", "goes") } else { ("s", "go") };
        let besides = if pass.told > 0 { "more " } else { "" };
        say::warn_detail(
            &format!("{more} {besides}row{s} of {name} {go} into quarantine"),
            Some("See pg_reaper_quarantine. pg_reaper.log_limit bounds the lines of one pass."),
        );
    }
    if !news.released.is_empty() {
        say::log(format!("rows of {name} that are out of quarantine: {}", news.released.len()));
    }
}

/// Forgets rows of tables that are not watched any more.
pub fn clean(extension: &Extension) -> Result<(), Failure> {
    if extension.has_quarantine {
        let statement = extension.sql(include_str!("../../sql/quarantine/clean.sql"));
        as_owner(extension.owner, Restriction::Full, || sql::execute(&statement, &[]))?;
    }
    Ok(())
}
