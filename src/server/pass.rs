//! One policy's part of a sweep, the same for the worker and for `pg_reaper_sweep()`.
//!
//! [`crate::decide::walk`] says which rows a batch takes, and [`super::reaper`] takes them.

use super::clock::{server_now, ticks};
use super::extension::Extension;
use super::failure::Failure;
use super::orphans;
use super::quarantine;
use super::reaper::Reaper;
use super::sandbox::Restriction;
use super::sql::{self, Arg};
use super::statements::Statements;
use super::target::{Target, Watched};
use crate::decide::config::Settings;
use crate::decide::orphan::Rule;
use crate::decide::progress::{Ahead, Pass, Progress, Then};
use crate::decide::quarantine::Quarantine;
use crate::decide::rota::Probes;
use crate::decide::stuck::{STUCK_STEP, StuckScan};
use crate::decide::walk::{self, Bounds, Pace};
use crate::decide::{ServerTime, Ticks, micros};
use pgrx::pg_sys;
use std::time::Duration;

pub use crate::decide::walk::End;

/// Why a pass stopped before its end.
pub enum Stop {
    /// The lease is not ours, or that cannot be told. Nothing of the batch was committed.
    NotLeading,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Who runs the pass.
pub trait Host {
    /// Runs a read of `target` in a transaction, the table held still.
    fn read<T>(
        &mut self,
        target: &Target,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure>;
    /// Runs a batch in a (sub)transaction of its own, the table held still, fenced if this is a
    /// leader. Where its rows are `told` one by one, it is durable when this returns.
    fn batch<T>(
        &mut self,
        target: &Target,
        told: bool,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Stop>;
    /// Whether `failure` of the last read or batch is a cancellation before its time: by somebody
    /// who has waited for a lock of ours, or by hand.
    fn made_way(&self, failure: &Failure) -> bool;
    /// Whose tables what happens is written down in.
    fn extension(&self) -> &Extension;
    /// Told of every batch that took too long, and was rolled back.
    fn timed_out(&mut self, target: &Target, rows: usize, failure: &Failure);
    /// How tightly the owner of a table is held.
    fn restriction(&self, owner: pg_sys::Oid) -> Restriction;
    /// Told of every batch that reaped rows, once it is committed.
    fn reaped(&mut self, rows: u64);
    /// Makes what was reaped durable, and counts it. At the end of a pass, however it ended.
    fn settle(&mut self);
    /// Whether to come back later for the rest. Asked between batches.
    fn should_yield(&mut self) -> bool;
}

/// The bounds of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub batch_size: usize,
    pub log_limit: usize,
    /// The most rows to reap, all in all.
    pub max_rows: u64,
    pub stuck_timeout: Option<Duration>,
    /// The most rows of the table in quarantine.
    pub quarantine: usize,
    /// How long a row is left alone that goes there.
    pub first_wait: Duration,
    /// Whether all rows in quarantine are tried again, and not just those whose time has come.
    pub tries_all: bool,
}

impl Limits {
    /// The bounds of a pass over `target`: its policy's own settings before the common ones.
    pub fn of(target: &Target, settings: &Settings, max_rows: u64) -> Limits {
        let stuck_timeout = match target.stuck_timeout {
            Some(own) => Some(own).filter(|timeout| !timeout.is_zero()),
            None => settings.stuck_timeout,
        };
        let batch_size = target.batch_size.unwrap_or(settings.batch_size);
        Limits {
            batch_size,
            log_limit: settings.log_limit,
            max_rows,
            stuck_timeout,
            quarantine: settings.quarantine_limit,
            first_wait: settings.interval,
            tries_all: false,
        }
    }
}

/// What the passes of one table remember.
pub struct Memory {
    /// What `progress` is about.
    watched: Option<Watched>,
    progress: Progress,
    stuck: StuckScan,
    pace: Pace,
    /// Whether an index leads with the deadline; `None`: not looked yet.
    pub indexed: Option<bool>,
    /// What was due then has had its turn.
    pub cutoff_at: ServerTime,
    /// When the next deadline is asked for.
    pub probes: Probes,
    /// Those of the last visit, with their plans.
    pub statements: Option<Statements>,
    /// Rows that are past their deadline and cannot be reaped; `None`: not read yet.
    quarantine: Option<Quarantine>,
    /// Rows without progress that cannot.
    stuck_quarantine: Quarantine,
}

impl Memory {
    pub fn new(batch_size: usize) -> Self {
        Memory {
            watched: None,
            progress: Progress::default(),
            stuck: StuckScan::default(),
            pace: Pace::new(batch_size),
            indexed: None,
            cutoff_at: ServerTime::MIN,
            probes: Probes::default(),
            statements: None,
            quarantine: None,
            stuck_quarantine: Quarantine::default(),
        }
    }

    /// The scan for rows without progress begins anew, at once: its timeout may be another. So does
    /// what is known of the quarantine, where somebody may have lent a hand.
    pub fn try_again(&mut self) {
        self.stuck = StuckScan::default();
        self.quarantine = None;
        self.stuck_quarantine = Quarantine::default();
    }

    /// When the next step of the scan for rows without progress is due.
    pub fn stuck_due(&self) -> Ticks {
        self.stuck.due
    }
}

/// Reaps the rows of one table that are past `expires_at`.
pub fn expired<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
    memory: &mut Memory,
    limits: &Limits,
) -> Result<End, Stop> {
    if memory.watched.as_ref() != Some(watched) {
        // A place in the order of one column is none in that of another.
        memory.progress = Progress::default();
        memory.indexed = None;
        memory.quarantine = None;
        memory.watched = Some(watched.clone());
    }
    let began = ticks();
    let now = server_now();
    let bound = match watched.deadline.is_the_column() {
        true => now,
        false => host.read(target, || watched.bound(now))?,
    };
    let mut quarantine = match memory.quarantine.take() {
        Some(known) => known,
        None => quarantine::load(host, target, watched)?,
    };
    let kept = memory.statements.take().filter(|kept| kept.are_for(target, watched));
    let statements = kept.unwrap_or_else(|| Statements::new(target, watched));
    let mut reaper = Reaper::new(host, target, watched, Rule::Expired, limits, statements);
    memory.indexed = Some(reaper.look_for_index(memory.indexed)?);
    let mut pass = memory.progress.resume(bound, ticks());
    // One that goes on has the cutoff that it began with.
    if pass.cutoff == bound {
        memory.cutoff_at = now;
    }
    let end = turn(&mut reaper, &mut pass, &mut memory.pace, &mut quarantine, limits);
    memory.indexed = reaper.indexed;
    // A walk that failed has its cost too, and is not repeated at once either.
    if let Some((ended, took)) = reaper.first_read {
        memory.progress.first_read_done(&mut pass, ended, took);
    }
    memory.statements = Some(reaper.statements);
    let now = ticks();
    let over = match watched.filter {
        Some(_) => now.saturating_sub(began),
        None => reaper.read_over,
    };
    if !over.is_zero() {
        memory.progress.walked_over(&mut pass, now, over);
    }
    host.settle();
    let rule = Rule::Expired;
    let recorded =
        quarantine::record(host, target, watched, rule, limits, &mut pass, &mut quarantine);
    memory.quarantine = Some(quarantine);
    let end = end.and_then(|end| recorded.map(|()| end));
    match end {
        Ok(End::CutShort) => {
            memory.progress.suspend(pass);
            return end;
        }
        Ok(End::Done) => memory.progress.finish(&pass),
        // What was reaped before an error is reaped.
        Ok(End::MaxRows) => {}
        Err(_) => memory.progress.fail(&pass),
    }
    orphans::log_rest(target, watched, &pass);
    end
}

/// Tries rows in quarantine again whose time has come, and then all others.
fn turn<H: Host>(
    reaper: &mut Reaper<H>,
    pass: &mut Pass,
    pace: &mut Pace,
    quarantine: &mut Quarantine,
    limits: &Limits,
) -> Result<End, Stop> {
    let (now, began) = (server_now(), ticks());
    let bounds = Bounds {
        batch_size: limits.batch_size,
        max_rows: limits.max_rows,
        quarantine: if reaper.host.extension().has_quarantine { limits.quarantine } else { 0 },
        now,
        first_wait: limits.first_wait,
    };
    let due = match limits.tries_all {
        true => quarantine.all(),
        false => quarantine.due(now, began),
    };
    if !due.is_empty() {
        let outcome = walk::retry(reaper, pass, quarantine, &due, &bounds);
        let ended = ticks();
        quarantine.round_done(ended, ended.saturating_sub(began));
        outcome?;
    }
    walk::walk(reaper, pass, pace, quarantine, &bounds)
}

/// Takes one step of the scan for rows without progress; `None` where the rule is off or the
/// table has no `last_progress_at`.
pub fn stuck<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
    memory: &mut Memory,
    limits: &Limits,
) -> Result<Option<End>, Stop> {
    let moves = watched.barrier.is_some_and(|shape| shape.last_progress_at);
    let Some(timeout) = limits.stuck_timeout.filter(|_| moves) else {
        return Ok(None);
    };
    let watched = Watched { barrier: watched.barrier, ..Watched::column("last_progress_at") };
    let began = ticks();
    let mut pass = Pass::unordered(server_now().saturating_sub(micros(timeout)));
    let first = memory.stuck.next_block;
    let blocks = host.read(target, || blocks(target.relation))?;
    let (rule, statements) = (Rule::Stuck(timeout), Statements::new(target, &watched));
    let mut reaper = Reaper::new(host, target, &watched, rule, limits, statements);
    let mut rows = reaper.stuck(first, first.saturating_add(STUCK_STEP), &pass)?;
    let quarantine = &mut memory.stuck_quarantine;
    rows.retain(|row| !quarantine.holds(row));
    pass.ahead = Some(Ahead::new(rows, Then::End));
    let outcome = turn(&mut reaper, &mut pass, &mut memory.pace, quarantine, limits);
    host.settle();
    let recorded = quarantine::record(host, target, &watched, rule, limits, &mut pass, quarantine);
    orphans::log_rest(target, &watched, &pass);
    let outcome = outcome?;
    recorded?;
    if outcome == End::CutShort {
        // The same step again, at once: what it had reaped is gone by then.
        return Ok(Some(End::CutShort));
    }
    let last = memory.stuck.step_done(blocks, began, ticks(), timeout);
    Ok(Some(if last { End::Done } else { End::CutShort }))
}

/// How many blocks a table has.
fn blocks(relation: pg_sys::Oid) -> Result<u32, Failure> {
    let statement = "SELECT pg_catalog.pg_relation_size($1) \
                     OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8";
    let found = sql::query(statement, &[Arg::Oid(relation)], |row| Ok(row.int8(1)))?;
    let blocks = found.into_iter().flatten().next().unwrap_or(0);
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}
