//! When the next row of a table is due, so that the worker can sleep until then.

use super::clock::{server_now, ticks};
use super::failure::Failure;
use super::indexed::{self, By};
use super::memory::Memory;
use super::pass::Host;
use super::prepared::with_snapshot_of_now;
use super::sandbox::{as_owner, with_plain_input};
use super::sql::{self, Arg, Row};
use super::target::{Target, Watched};
use crate::decide::micros;
use std::time::Duration;

/// How many rows ahead are looked at for one that the filter lets through.
const LOOK_AHEAD: i64 = 10_000;

/// How long until the next row of `target` is due, or until that can be told, if that is within
/// `horizon`: one that its last pass has not had a look at, though it may be due by now. A table whose
/// next row is dear to find, for want of an index, is asked seldom.
pub fn due_in<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
    memory: &mut Memory,
    horizon: Duration,
) -> Result<Option<Duration>, Failure> {
    let asked = ticks();
    if asked < memory.probes.next {
        return Ok(Some(memory.probes.next - asked));
    }
    let key = watched.deadline.column_type;
    let restriction = host.restriction(target.owner);
    let mut since = asked;
    let found = host.read(target, || {
        since = ticks();
        let now = server_now();
        let after = memory.cutoff_at.min(now);
        let args = [
            Arg::Key(key, watched.bound(after)?),
            Arg::Key(key, watched.bound(now.saturating_add(micros(horizon)))?),
            Arg::Time(after),
            Arg::Int8(LOOK_AHEAD),
        ];
        let due = |row: &Row| Ok(row.int8(1));
        let whole = memory.indexed == Some(By::Whole);
        if let Some(kept) = memory.statements.as_ref().filter(|_| whole) {
            return as_owner(target.owner, restriction, || {
                with_snapshot_of_now(|| kept.next.read(&args, due))
            });
        }
        let template = match indexed::serves(target, watched)? {
            By::Filtered => include_str!("../../sql/sweep/next_met.sql"),
            By::Whole | By::Nothing => include_str!("../../sql/sweep/next.sql"),
        };
        let statement = watched.statement(template, &target.name, now);
        let query = || sql::query(&statement, &args, due);
        as_owner(target.owner, restriction, || with_plain_input(query))
    });
    let found = match found {
        // That row is not due yet. Until it is, the others are found by the interval.
        Err(failure) if watched.filter_raised(&failure) => vec![],
        found => found?,
    };
    let ended = ticks();
    memory.probes.done(ended, ended.saturating_sub(since));
    Ok(found.into_iter().flatten().next().map(|due| {
        let wait = due.saturating_sub(server_now());
        Duration::from_micros(u64::try_from(wait).unwrap_or(0))
    }))
}
