//! One policy's part of a sweep, the same for the worker and for `pg_reaper_sweep()`.
//!
//! A pass reads the tids of due rows ahead, in the order of their deadlines, and reaps them in
//! batches. Reading ahead walks the index once for many batches, so that neither many rows with
//! one deadline nor an old snapshot that keeps dead entries in place makes it crawl.

use super::clock::{server_now, ticks};
use super::failure::Failure;
use super::orphans;
use super::policies::Target;
use super::reaper::{Reaper, item_pointer};
use super::sandbox::Restriction;
use super::sql::{self, Arg};
use crate::decide::batch::BatchSize;
use crate::decide::orphan::Rule;
use crate::decide::progress::{Due, Pass, Progress, STUCK_STEP, StuckScan, Tid};
use crate::decide::shape::Shape;
use crate::decide::{Ticks, micros};
use pgrx::pg_sys;
use std::time::Duration;

/// How many tids are read ahead at once: bounds memory (some 24 bytes each).
const READ_AHEAD: usize = 20_000;

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
    /// Runs a read in a transaction.
    fn read<T>(&mut self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure>;
    /// Runs a batch in a (sub)transaction of its own, fenced if this is a leader.
    fn batch<T>(&mut self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Stop>;
    /// How tightly the owner of a table is held.
    fn restriction(&self, owner: pg_sys::Oid) -> Restriction;
    /// Told of every batch that reaped rows, once it is committed.
    fn reaped(&mut self, rows: u64);
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
}

/// What the passes of one table remember.
#[derive(Clone, Debug)]
pub struct Memory {
    progress: Progress,
    stuck: StuckScan,
    size: BatchSize,
}

impl Memory {
    pub fn new(batch_size: usize) -> Self {
        Memory {
            progress: Progress::default(),
            stuck: StuckScan::default(),
            size: BatchSize::new(batch_size),
        }
    }

    /// When the next step of the scan for rows without progress is due.
    pub fn stuck_due(&self) -> Ticks {
        self.stuck.due
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub reaped: u64,
    /// Due rows are left for the next cycle.
    pub cut_short: bool,
}

/// Reaps the rows of one table that are past `expires_at`.
pub fn expired<H: Host>(
    host: &mut H,
    target: &Target,
    shape: Shape,
    memory: &mut Memory,
    limits: &Limits,
) -> Result<Done, Stop> {
    let mut done = Done::default();
    let mut pass = memory.progress.resume(server_now(), ticks());
    let due =
        sql::statement(include_str!("../../sql/sweep/due.sql")).replace("@table@", &target.name);
    let mut reaper = Reaper::new(host, target, shape, Rule::Expired, limits);
    loop {
        let room = limits.max_rows - done.reaped;
        let want = READ_AHEAD.min(usize::try_from(room).unwrap_or(usize::MAX));
        let args = [
            Arg::Time(pass.cutoff),
            Arg::Time(pass.after.deadline),
            Arg::Tid(item_pointer(pass.after.tid)),
            Arg::Int8(want as i64),
        ];
        let rows = reaper.read(&due, &args)?;
        memory.progress.first_read_done(&mut pass, ticks());
        let short = rows.len() < want;
        for_each_batch(&rows, &mut memory.size, limits.batch_size, |rows| {
            done.reaped += reaper.reap(rows, &mut pass)?;
            done.cut_short = reaper.host.should_yield();
            Ok(!done.cut_short)
        })?;
        if done.cut_short {
            memory.progress.suspend(pass);
            return Ok(done);
        }
        if done.reaped >= limits.max_rows {
            break;
        }
        if short {
            memory.progress.finish(&pass);
            break;
        }
    }
    orphans::log_rest(target, &pass);
    Ok(done)
}

/// Takes one step of the scan for rows without progress; `None` where the rule is off or the
/// table has no `last_progress_at`. `cut_short` says that the round goes on.
pub fn stuck<H: Host>(
    host: &mut H,
    target: &Target,
    shape: Shape,
    memory: &mut Memory,
    limits: &Limits,
) -> Result<Option<Done>, Stop> {
    let Some(timeout) = limits.stuck_timeout.filter(|_| shape.last_progress_at) else {
        return Ok(None);
    };
    let began = ticks();
    let cutoff = server_now().saturating_sub(micros(timeout));
    let mut pass = Pass::unordered(cutoff);
    let scan =
        sql::statement(include_str!("../../sql/sweep/stuck.sql")).replace("@table@", &target.name);
    let first = memory.stuck.next_block;
    let blocks = host.read(|| blocks(target.relation))?;
    let mut reaper = Reaper::new(host, target, shape, Rule::Stuck(timeout), limits);
    let mut done = Done::default();
    let edge = |block| Arg::Tid(item_pointer(Tid { block, offset: 0 }));
    let args = [Arg::Time(cutoff), edge(first), edge(first.saturating_add(STUCK_STEP))];
    let mut rows = reaper.read(&scan, &args)?;
    rows.truncate(usize::try_from(limits.max_rows).unwrap_or(usize::MAX));
    for_each_batch(&rows, &mut memory.size, limits.batch_size, |rows| {
        done.reaped += reaper.reap(rows, &mut pass)?;
        Ok(true)
    })?;
    let ended = ticks();
    done.cut_short = !memory.stuck.step_done(blocks, began, ended, timeout);
    orphans::log_rest(target, &pass);
    Ok(Some(done))
}

/// Hands out `rows` batch by batch, until `reap` returns false. After a timeout the same rows are
/// tried again in batches of half the size, down to one.
fn for_each_batch(
    mut rows: &[Due],
    size: &mut BatchSize,
    setting: usize,
    mut reap: impl FnMut(&[Due]) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    while !rows.is_empty() {
        let (batch, rest) = rows.split_at(size.get(setting).min(rows.len()));
        match reap(batch) {
            Ok(go_on) => {
                size.succeeded(setting);
                rows = rest;
                if !go_on {
                    break;
                }
            }
            Err(Stop::Failed(failure)) if failure.is_timeout() && size.timed_out(batch.len()) => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

/// How many blocks a table has.
fn blocks(relation: pg_sys::Oid) -> Result<u32, Failure> {
    let statement = "SELECT pg_catalog.pg_relation_size($1) \
                     OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8";
    let found = sql::query(statement, &[Arg::Oid(relation)], |row| Ok(row.int8(1)))?;
    let blocks = found.into_iter().flatten().next().unwrap_or(0);
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}
