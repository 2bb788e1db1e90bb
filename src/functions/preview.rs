//! `pg_reaper_preview()`: what the next pass would reap, and why. It changes nothing.

use super::answer;
use super::sweep::{Asked, contained, targets};
use crate::decide::config::Settings;
use crate::decide::deadline::Deadline;
use crate::decide::orphan::ascii;
use crate::decide::refusal::Refusal;
use crate::decide::{ServerTime, micros};
use crate::server::clock::server_now;
use crate::server::encoding::reportable;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::pass::Limits;
use crate::server::relation::hold_still;
use crate::server::sandbox::{self, as_owner, with_lock_timeout, with_plain_input};
use crate::server::sql::{self, Arg, Row, required};
use crate::server::target::{Target, Watched};
use crate::server::{quarantine, settings};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

/// One row that is due.
struct Due {
    policy: i64,
    relation: pg_sys::Oid,
    tid: String,
    deadline: ServerTime,
    reason: String,
    row: String,
}

/// A row for each that is due now, at most `max_rows`. Rows that somebody holds locked are among
/// them, though a pass would leave them for later.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "one column of the result each")]
fn pg_reaper_preview(
    policy: Option<i64>,
    max_rows: Option<i32>,
) -> TableIterator<
    'static,
    (
        name!(policy, i64),
        name!(relation, pg_sys::Oid),
        name!(tid, String),
        name!(deadline, Option<TimestampWithTimeZone>),
        name!(reason, String),
        name!(row_data, String),
    ),
> {
    let due = answer(|| preview(policy, max_rows));
    TableIterator::new(due.into_iter().map(|due| {
        let deadline = TimestampWithTimeZone::try_from(due.deadline).ok();
        // Text and json are the same to PostgreSQL but for their names.
        let (reason, row) = (reportable(&due.reason), ascii(&due.row));
        (due.policy, due.relation, due.tid, deadline, reason, row)
    }))
}

fn preview(policy: Option<i64>, max_rows: Option<i32>) -> Result<Vec<Due>, Failure> {
    let max_rows = match max_rows {
        None => usize::MAX,
        Some(rows) => {
            usize::try_from(rows).map_err(|_| Refusal::NegativeMaxRows { max_rows: rows.into() })?
        }
    };
    let settings = settings::read();
    let targets = targets(policy.map(Asked::Policy))?;
    let extension = Extension::expect()?;
    with_lock_timeout(settings.lock_limit(), || {
        let mut found = Vec::new();
        for target in targets {
            let room = max_rows - found.len();
            match contained(|| one(&extension, &target, &settings, room)) {
                Ok(due) => found.extend(due),
                Err(failure) if policy.is_some() => return Err(failure),
                Err(failure) => {
                    let name = &target.name;
                    let message = format!("nothing is shown of {name}: {}", failure.message);
                    failure.advised().report_as(PgLogLevel::WARNING, message);
                }
            }
        }
        Ok(found)
    })
}

/// What is due in one table, by either rule.
fn one(
    extension: &Extension,
    target: &Target,
    settings: &Settings,
    room: usize,
) -> Result<Vec<Due>, Failure> {
    let watched = target.watched.as_ref().map_err(Clone::clone)?;
    let now = server_now();
    let deadline = &watched.deadline;
    let why = match &deadline.ttl {
        Some(ttl) => format!("past {} + {ttl}", deadline.column),
        None => format!("past {}", deadline.column),
    };
    let why = why.replace("::pg_catalog.interval", "");
    hold_still(target, pg_sys::AccessShareLock, None)?;
    let bound = watched.bound(now)?;
    // The filter may raise an error for any row in quarantine.
    let tried_after = if watched.filter.is_some() { ServerTime::MIN } else { now };
    let waiting = quarantine::waiting(extension, target, tried_after)?;
    let bounds = Bounds { now, room, waiting };
    let mut found =
        read(target, watched, bound, &bounds, &|due| Due { reason: why.clone(), ..due })?;
    let moves = watched.barrier.is_some_and(|shape| shape.last_progress_at);
    if let Some(timeout) = Limits::of(target, settings, 0).stuck_timeout.filter(|_| moves) {
        let stuck = Watched { deadline: Deadline::column("last_progress_at"), ..watched.clone() };
        let why = format!("no progress for {timeout:?}");
        let stuck_at = |due: Due| Due {
            reason: why.clone(),
            deadline: due.deadline.saturating_add(micros(timeout)),
            ..due
        };
        let bound = now.saturating_sub(micros(timeout));
        let more = read(target, &stuck, bound, &bounds, &stuck_at)?;
        found.extend(more.into_iter().filter(|due| due.deadline < now));
        found.sort_by(|one, other| (&one.tid, one.deadline).cmp(&(&other.tid, other.deadline)));
        found.dedup_by(|later, first| later.tid == first.tid);
        found.sort_by_key(|due| due.deadline);
        found.truncate(room);
    }
    Ok(found)
}

/// What is to be found in one table.
struct Bounds {
    now: ServerTime,
    /// At most so many rows.
    room: usize,
    /// None of these.
    waiting: Vec<pg_sys::ItemPointerData>,
}

fn read(
    target: &Target,
    watched: &Watched,
    bound: ServerTime,
    bounds: &Bounds,
    finish: &dyn Fn(Due) -> Due,
) -> Result<Vec<Due>, Failure> {
    let template = include_str!("../../sql/policy/preview.sql");
    let template = match bounds.waiting.is_empty() {
        true => template.to_owned(),
        // PostgreSQL may evaluate the conditions of a WHERE in any order, but not those of a CASE.
        false => template.replace(
            "@also@",
            " AND CASE WHEN \"the row\".ctid = ANY ($3) THEN false ELSE true@also@ END",
        ),
    };
    let statement = watched.statement(&template, &target.name, bounds.now);
    let room = i64::try_from(bounds.room).unwrap_or(i64::MAX);
    let key = watched.deadline.column_type;
    let args = [Arg::Key(key, bound), Arg::Int8(room), Arg::Tids(&bounds.waiting)];
    let restriction = sandbox::restriction_of(target.owner);
    let due = |row: &Row| {
        Ok(finish(Due {
            policy: target.policy,
            relation: target.relation,
            tid: required(row.text(1), "tid")?,
            deadline: required(row.int8(2), "deadline")?,
            reason: String::new(),
            row: required(row.text(3), "row")?,
        }))
    };
    let query = || sql::query(&statement, &args, due);
    as_owner(target.owner, restriction, || with_plain_input(query))
}
