//! Reading and reaping the rows of one table, as its owner.

use super::clock::{server_now, ticks};
use super::failure::Failure;
use super::orphans;
use super::pass::{Host, Limits, Stop};
use super::sandbox::as_owner;
use super::sql::{self, Arg, required};
use super::target::{Target, Watched};
use crate::decide::Ticks;
use crate::decide::batch::BatchSize;
use crate::decide::deadline::ColumnType;
use crate::decide::orphan::{Orphan, Rule};
use crate::decide::progress::{Due, Pass, Tid};
use pgrx::pg_sys;
use std::time::Duration;

/// Reads and reaps as the owner of one table.
pub struct Reaper<'a, H> {
    pub host: &'a mut H,
    target: &'a Target,
    rule: Rule,
    /// The type of the column that rows are due by.
    key: ColumnType,
    log_limit: usize,
    /// When the last read got its lock.
    reading_since: Option<Ticks>,
    /// Deletes, and returns nothing.
    reap: String,
    /// Deletes, and returns what a log line says.
    reap_and_tell: String,
}

impl<'a, H: Host> Reaper<'a, H> {
    pub fn new(
        host: &'a mut H,
        target: &'a Target,
        watched: &Watched,
        rule: Rule,
        limits: &Limits,
    ) -> Self {
        let template = include_str!("../../sql/sweep/reap.sql");
        let reap = watched.statement(template, &target.name, server_now());
        let shape = watched.barrier.unwrap_or_default();
        let column = &watched.deadline.column;
        let reap_and_tell = format!(
            "{reap}\nRETURNING execution_id, {}, {}, {column}",
            if shape.organization_id { "organization_id" } else { "NULL" },
            if shape.remaining { "remaining::pg_catalog.int8" } else { "NULL::pg_catalog.int8" },
        );
        // Only barriers are told of one by one.
        let log_limit = if watched.barrier.is_some() { limits.log_limit } else { 0 };
        let (key, reading_since) = (watched.deadline.column_type, None);
        Reaper { host, target, rule, key, log_limit, reading_since, reap, reap_and_tell }
    }

    /// How long the last read took, up to now, without the wait for its lock.
    pub fn reading_took(&self) -> Duration {
        self.reading_since.map_or(Duration::ZERO, |since| ticks().saturating_sub(since))
    }

    /// The rows of `statement`, as (key, tid).
    pub fn read(&mut self, statement: &str, args: &[Arg]) -> Result<Vec<Due>, Failure> {
        let restriction = self.host.restriction(self.target.owner);
        let (owner, key) = (self.target.owner, self.key);
        self.reading_since = None;
        let since = &mut self.reading_since;
        self.host.read(self.target, || {
            *since = Some(ticks());
            as_owner(owner, restriction, || {
                sql::query(statement, args, |row| {
                    let pointer = required(row.tid(2), "ctid")?;
                    let block = (u32::from(pointer.ip_blkid.bi_hi) << 16)
                        | u32::from(pointer.ip_blkid.bi_lo);
                    let tid = Tid { block, offset: pointer.ip_posid };
                    Ok(Due { deadline: required(row.key(1, key), "deadline")?, tid })
                })
            })
        })
    }

    /// Reaps `rows` batch by batch; false when there are some left and the host wants its turn.
    /// After a timeout the same rows are tried again in batches of half the size, down to one.
    pub fn reap(
        &mut self,
        mut rows: &[Due],
        size: &mut BatchSize,
        setting: usize,
        pass: &mut Pass,
    ) -> Result<bool, Stop> {
        while !rows.is_empty() {
            let (batch, rest) = rows.split_at(size.get(setting).min(rows.len()));
            match self.batch(batch, pass) {
                Ok(()) => {
                    size.succeeded(setting);
                    rows = rest;
                }
                Err(Stop::Failed(failure))
                    if failure.is_cancel() && size.timed_out(batch.len()) =>
                {
                    self.host.timed_out(self.target, batch.len(), &failure);
                }
                Err(stop) => return Err(stop),
            }
            if !rows.is_empty() && self.host.should_yield() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reaps one batch. What the worker logs is committed by then.
    fn batch(&mut self, rows: &[Due], pass: &mut Pass) -> Result<(), Stop> {
        let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else {
            return Ok(());
        };
        let room = self.log_limit.saturating_sub(pass.logged);
        // Telling costs; once the limit is reached it is left off.
        let statement = if room > 0 { &self.reap_and_tell } else { &self.reap };
        let restriction = self.host.restriction(self.target.owner);
        let (owner, rule) = (self.target.owner, self.rule);
        let cutoff = Arg::Key(self.key, pass.cutoff);
        let tids: Vec<_> = rows.iter().map(|row| item_pointer(row.tid)).collect();
        let (reaped, mut told) = self.host.batch(self.target, || {
            as_owner(owner, restriction, || {
                sql::run(statement, &[Arg::Tids(&tids), cutoff], |row| {
                    Ok(Orphan {
                        execution_id: row.text(1),
                        organization_id: row.text(2),
                        remaining: row.int8(3),
                        deadline: orphans::deadline(rule, required(row.int8(4), "deadline")?),
                    })
                })
            })
        })?;
        self.host.reaped(reaped);
        told.truncate(room);
        orphans::log(self.target, rule, server_now(), &told);
        pass.logged += told.len();
        pass.unlogged += reaped - told.len() as u64;
        pass.batch_done(first, last, rows.len(), reaped);
        Ok(())
    }
}

/// A tid as PostgreSQL keeps it.
pub fn item_pointer(tid: Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (tid.block >> 16) as u16,
            bi_lo: (tid.block & 0xffff) as u16,
        },
        ip_posid: tid.offset,
    }
}
