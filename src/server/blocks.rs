//! Passes over the blocks of a table, where no index leads to what is due: a step of some blocks at a
//! time, so that reading has a small share of the time however large the table is.

use super::clock::{server_now, ticks};
use super::failure::Failure;
use super::memory::Memory;
use super::orphans;
use super::pass::{End, Host, Limits, Stop, turn};
use super::quarantine;
use super::reaper::Reaper;
use super::sql::{self, Arg};
use super::statements::Statements;
use super::target::{Target, Watched};
use crate::decide::ahead::{Ahead, Then};
use crate::decide::orphan::Rule;
use crate::decide::progress::Pass;
use crate::decide::quarantine::Quarantine;
use crate::decide::scan::{STEP, Scan};
use crate::decide::walk::Pace;
use crate::decide::{ServerTime, micros};
use pgrx::pg_sys;
use std::time::Duration;

/// What is looked for in the blocks of a table.
pub struct Blocks<'a> {
    pub target: &'a Target,
    pub watched: &'a Watched,
    pub rule: Rule,
    /// Rows with a key before this are due.
    pub cutoff: ServerTime,
    /// When the cutoff was read.
    pub since: ServerTime,
    /// How long after a round began the next one may.
    pub again: Duration,
}

/// Takes one step of the scan for rows without progress, or all of them by hand. Nothing where the rule
/// is off or the table has no `last_progress_at`.
pub fn stuck<H: Host>(
    host: &mut H,
    target: &Target,
    watched: &Watched,
    memory: &mut Memory,
    limits: &Limits,
) -> Result<(), Stop> {
    let moves = watched.barrier.is_some_and(|shape| shape.last_progress_at);
    let Some(timeout) = limits.stuck_timeout.filter(|_| moves) else {
        return Ok(());
    };
    let watched = &Watched { barrier: watched.barrier, ..Watched::column("last_progress_at") };
    let since = server_now();
    let cutoff = since.saturating_sub(micros(timeout));
    let (rule, again) = (Rule::Stuck(timeout), timeout / 4);
    let of = Blocks { target, watched, rule, cutoff, since, again };
    let Memory { stuck, pace, stuck_quarantine, .. } = memory;
    of.scan(host, stuck, pace, stuck_quarantine, limits).map(|_| ())
}

impl Blocks<'_> {
    /// Takes the next step if it is due, or by hand all of them.
    pub fn scan<H: Host>(
        &self,
        host: &mut H,
        scan: &mut Scan,
        pace: &mut Pace,
        quarantine: &mut Quarantine,
        limits: &Limits,
    ) -> Result<End, Stop> {
        if !limits.by_hand && ticks() < scan.due {
            return Ok(End::Done);
        }
        let (all, mut limits) = (limits.by_hand, *limits);
        loop {
            let began = ticks();
            let blocks = host.read(self.target, || blocks(self.target.relation))?;
            let (end, reaped) = self.step(host, scan, pace, quarantine, &limits)?;
            if end == End::CutShort {
                return Ok(End::CutShort);
            }
            let last = scan.step_done(blocks, began, ticks(), self.again);
            limits.max_rows = limits.max_rows.saturating_sub(reaped);
            if last || !all || limits.max_rows == 0 {
                return Ok(end);
            }
            // What is in quarantine was tried with the first step.
            limits.by_hand = false;
        }
    }

    /// Reaps what is due in the next blocks: how far it came, and how many rows went.
    fn step<H: Host>(
        &self,
        host: &mut H,
        scan: &mut Scan,
        pace: &mut Pace,
        quarantine: &mut Quarantine,
        limits: &Limits,
    ) -> Result<(End, u64), Stop> {
        let Blocks { target, watched, rule, since, .. } = *self;
        let statements = Statements::new(target, watched);
        let mut reaper = Reaper::new(host, target, watched, rule, limits, statements, since);
        let mut pass = match scan.resume(self.cutoff) {
            Some(pass) => pass,
            None => {
                let mut pass = Pass::unordered(self.cutoff);
                let first = scan.next_block;
                let rows = reaper.blocks(first, first.saturating_add(STEP), &pass)?;
                scan.read = reaper.last_read;
                let mut ahead = Ahead::new(rows, Then::End);
                ahead.leave_out(|row| quarantine.holds(row));
                pass.ahead = Some(ahead);
                pass
            }
        };
        let outcome = turn(&mut reaper, &mut pass, pace, quarantine, limits);
        host.settle();
        let recorded =
            quarantine::record(host, target, watched, rule, limits, &mut pass, quarantine);
        orphans::log_rest(target, watched, &pass);
        let (end, reaped) = (outcome?, pass.reaped());
        recorded?;
        if end == End::CutShort {
            // What it has reaped has been told.
            pass.unlogged = 0;
            scan.pass = Some(pass);
        }
        Ok((end, reaped))
    }
}

/// How many blocks a table has.
fn blocks(relation: pg_sys::Oid) -> Result<u32, Failure> {
    let statement = "SELECT pg_catalog.pg_relation_size($1) \
                     OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8";
    let found = sql::query(statement, &[Arg::Oid(relation)], |row| Ok(row.int8(1)))?;
    let blocks = found.into_iter().flatten().next().unwrap_or(0);
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}
