//! One policy's part of a sweep, the same for the worker and for `pg_reaper_sweep()`.
//!
//! [`crate::decide::walk`] says which rows a batch takes, and [`super::reaper`] takes them.

use super::blocks::Blocks;
use super::clock::{server_now, ticks};
use super::extension::Extension;
use super::failure::Failure;
use super::indexed::By;
use super::memory::Memory;
use super::orphans;
use super::quarantine;
use super::reaper::Reaper;
use super::sandbox::Restriction;
use super::statements::Statements;
use super::target::{Target, Watched};
use crate::decide::config::Settings;
use crate::decide::orphan::Rule;
use crate::decide::progress::Pass;
use crate::decide::quarantine::Quarantine;
use crate::decide::walk::{self, Bounds, Pace};
use pgrx::pg_sys;
use std::time::Duration;

pub use crate::decide::walk::rows::End;

/// Why a pass stopped before its end.
pub enum Stop {
    /// The lease is not ours, or that cannot be told. Nothing of the batch was committed.
    NotLeading,
    /// The policy was altered or dropped in the meantime. Nothing of the batch was committed.
    Altered,
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
    /// Told of every batch that was cancelled or met a lock, and was rolled back.
    fn timed_out(&mut self, target: &Target, rows: usize, failure: &Failure);
    /// Whether a batch gives way to whoever waits for it while it waits for them.
    fn gives_way(&self) -> bool;
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
    /// Somebody wants to see all of it done: all rows in quarantine are tried again, and not just
    /// those whose time has come; all blocks are scanned, and not just some.
    pub by_hand: bool,
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
            by_hand: false,
        }
    }
}

/// Reaps the rows of one table that are past their deadline. Where no index leads to them, one step of
/// a scan is taken when it is due.
pub fn expired<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
    memory: &mut Memory,
    limits: &Limits,
) -> Result<End, Stop> {
    if memory.watched.as_ref() != Some(watched) {
        memory.forget(watched);
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
    let rule = Rule::Expired;
    let mut reaper = Reaper::new(host, target, watched, rule, limits, statements, now);
    let indexed = reaper.look_for_index(memory.indexed)?;
    memory.indexed = Some(indexed);
    if indexed == By::Nothing {
        memory.cutoff_at = now;
        let (cutoff, since, again) = (bound, now, Duration::ZERO);
        let of = Blocks { target, watched, rule, cutoff, since, again };
        let statements = reaper.statements;
        let end = of.scan(host, &mut memory.scan, &mut memory.pace, &mut quarantine, limits);
        if memory.scan.next_block == 0 {
            // Somebody may have made one.
            memory.indexed = None;
        }
        memory.statements = Some(statements);
        memory.quarantine = Some(quarantine);
        return end;
    }
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
pub fn turn<H: Host>(
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
    let due = match limits.by_hand {
        true => quarantine.all(),
        false => quarantine.due(now, began),
    };
    if !due.is_empty() {
        let outcome = walk::retry::retry(reaper, pass, quarantine, &due, &bounds);
        let ended = ticks();
        quarantine.round_done(ended, ended.saturating_sub(began));
        outcome?;
    }
    walk::walk(reaper, pass, pace, quarantine, &bounds)
}
