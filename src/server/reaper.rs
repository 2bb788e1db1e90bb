//! Reading and reaping the rows of one table, as its owner.

use super::batch::{Doing, Reaped};
use super::clock::{server_now, ticks};
use super::failure::Failure;
use super::indexed::{self, By};
use super::orphans;
use super::pass::{Host, Limits, Stop};
use super::prepared::with_snapshot_of_now;
use super::range::Range;
use super::sandbox::{as_owner, giving_way, with_plain_input};
use super::sql::{self, Arg, Row, required};
use super::statements::{Reads, Statements};
use super::target::{Target, Watched};
use crate::decide::ahead::{Due, Tid};
use crate::decide::deadline::ColumnType;
use crate::decide::orphan::Rule;
use crate::decide::progress::Pass;
use crate::decide::quarantine::Why;
use crate::decide::refusal::Refusal;
use crate::decide::walk::rows::{Ranged, Rows, Snag};
use crate::decide::{ServerTime, Ticks};
use pgrx::pg_sys;
use std::time::Duration;

/// Reads and reaps as the owner of one table.
pub struct Reaper<'a, H> {
    pub host: &'a mut H,
    target: &'a Target,
    watched: &'a Watched,
    rule: Rule,
    log_limit: usize,
    /// What the clock said when the visit began; its cutoff was not read later.
    since: ServerTime,
    pub statements: Statements,
    /// What index leads with the deadline; `None`: not looked yet.
    pub indexed: Option<By>,
    /// When the first read ended, and how long it took without the wait for its lock.
    pub first_read: Option<(Ticks, Duration)>,
    /// How long the last read took.
    pub last_read: Duration,
    /// How long those took that found rows in quarantine.
    pub read_over: Duration,
    /// The filter raises an error for a row that was to be read.
    filter_raises: bool,
}

impl<'a, H: Host> Reaper<'a, H> {
    pub fn new(
        host: &'a mut H,
        target: &'a Target,
        watched: &'a Watched,
        rule: Rule,
        limits: &Limits,
        statements: Statements,
        since: ServerTime,
    ) -> Self {
        // Only barriers are told of one by one.
        let log_limit = if watched.barrier.is_some() { limits.log_limit } else { 0 };
        Reaper {
            host,
            target,
            watched,
            rule,
            log_limit,
            since,
            statements,
            indexed: None,
            first_read: None,
            last_read: Duration::ZERO,
            read_over: Duration::ZERO,
            filter_raises: false,
        }
    }

    /// What index leads with the deadline, as it was `known` to be, or as it is found to be.
    pub fn look_for_index(&mut self, known: Option<By>) -> Result<By, Failure> {
        let indexed = match known {
            Some(known) => known,
            None => self.host.read(self.target, || indexed::serves(self.target, self.watched))?,
        };
        self.indexed = Some(indexed);
        Ok(indexed)
    }

    /// Runs a read as the owner; where it found something, looks whether there is an index still.
    fn read<T>(
        &mut self,
        work: impl FnOnce(&Statements) -> Result<Vec<T>, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let (target, watched, statements) = (self.target, self.watched, &self.statements);
        let restriction = self.host.restriction(target.owner);
        let mut since = None;
        let mut found = None;
        let outcome = self.host.read(self.target, || {
            since = Some(ticks());
            let rows = as_owner(target.owner, restriction, || work(statements))?;
            if !rows.is_empty() {
                found = Some(indexed::serves(target, watched)?);
            }
            Ok(rows)
        });
        let now = ticks();
        let took = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.first_read.get_or_insert((now, took));
        self.last_read = took;
        self.indexed = found.or(self.indexed);
        outcome
    }

    /// The type of the column that rows are due by.
    fn of(&self) -> ColumnType {
        self.watched.deadline.column_type
    }

    /// A value of that column as a parameter.
    fn key(&self, key: ServerTime) -> Arg<'static> {
        Arg::Key(self.of(), key)
    }

    /// Reads the tids of due rows. Once the filter raises an error for one of them, of those that it
    /// leaves out as well: a batch that holds that row fails, and so the row is found.
    fn tids(
        &mut self,
        read: impl Fn(&Reads, &dyn Fn(&Row) -> Result<Due, Failure>) -> Result<Vec<Due>, Failure>,
    ) -> Result<Vec<Due>, Failure> {
        let of = self.of();
        loop {
            let all = self.filter_raises;
            let query = |all: &Reads| read(all, &|row| due(row, of));
            match self.read(|statements| with_plain_input(|| query(statements.reads(all)))) {
                Err(failure) if !all && self.watched.filter_raised(&failure) => {
                    self.filter_raises = true;
                }
                outcome => return outcome,
            }
        }
    }

    /// The due rows in the blocks from `first` up to `end`.
    pub fn blocks(&mut self, first: u32, end: u32, pass: &Pass) -> Result<Vec<Due>, Failure> {
        let edge = |block| Arg::Tid(item_pointer(Tid { block, offset: 0 }));
        let args = [self.key(pass.cutoff), edge(first), edge(end)];
        self.tids(|reads, due| sql::query(&reads.blocks, &args, due))
    }

    /// Runs one batch as the owner, and takes note of what it reaped. What is logged is durable by
    /// then.
    fn batch<T>(
        &mut self,
        pass: &mut Pass,
        work: impl FnOnce(&Statements, &Doing) -> Result<(Reaped, T), Failure>,
    ) -> Result<(u64, T), Snag<Stop>> {
        let room = self.log_limit.saturating_sub(pass.logged);
        let doing = Doing::new(self.rule, room > 0);
        let owner = self.target.owner;
        let restriction = self.host.restriction(owner);
        let statements = &self.statements;
        let back = self.since.saturating_sub(server_now());
        if back > 0 {
            // Rows that are written now may be live and have a deadline before the cutoff.
            let back = Duration::from_micros(back.unsigned_abs());
            return Err(Snag::Stop(Failure::from(Refusal::ClockSetBack { back }).into()));
        }
        let outcome = self.host.batch(self.target, doing.tells, || {
            as_owner(owner, restriction, || with_snapshot_of_now(|| work(statements, &doing)))
        });
        let ((reaped, mut told), rest) = outcome.map_err(|stop| doing.snag(stop))?;
        self.host.reaped(reaped);
        told.truncate(room);
        orphans::log(self.target, self.rule, server_now(), &told);
        pass.logged += told.len();
        pass.unlogged += reaped - told.len() as u64;
        Ok((reaped, rest))
    }
}

impl<H: Host> Rows for Reaper<'_, H> {
    type Stop = Stop;

    fn indexed(&self) -> bool {
        self.indexed == Some(By::Whole)
    }

    fn first(
        &mut self,
        from: ServerTime,
        past: bool,
        pass: &mut Pass,
    ) -> Result<Option<ServerTime>, Stop> {
        let args = [self.key(from), self.key(pass.cutoff), Arg::Int8(0)];
        let of = self.of();
        let found = self.read(|all| {
            let cut = if past { &all.cut_past } else { &all.cut };
            with_snapshot_of_now(|| cut.read(&args, |row| key(row, of)))
        })?;
        Ok(found.into_iter().next())
    }

    fn ahead(&mut self, after: Due, most: usize, pass: &mut Pass) -> Result<Vec<Due>, Stop> {
        let args = [
            self.key(pass.cutoff),
            self.key(after.deadline),
            Arg::Tid(item_pointer(after.tid)),
            Arg::Int8(most as i64),
        ];
        Ok(self.tids(|reads, due| sql::query(&reads.ahead, &args, due))?)
    }

    fn tie(&mut self, after: Due, most: usize, _pass: &mut Pass) -> Result<Vec<Due>, Stop> {
        let args =
            [self.key(after.deadline), Arg::Tid(item_pointer(after.tid)), Arg::Int8(most as i64)];
        Ok(self.tids(|reads, due| with_snapshot_of_now(|| reads.tie.read(&args, due)))?)
    }

    fn range(
        &mut self,
        from: ServerTime,
        until: ServerTime,
        most: usize,
        pass: &mut Pass,
    ) -> Result<Ranged, Snag<Stop>> {
        let range = Range { of: self.of(), from, until, most };
        let done = self.batch(pass, |all, doing| range.reap(all, doing));
        done.map(|(_, ranged)| ranged)
    }

    fn these(&mut self, rows: &[Due], wait: bool, pass: &mut Pass) -> Result<u64, Snag<Stop>> {
        let tids: Vec<_> = rows.iter().map(|row| item_pointer(row.tid)).collect();
        let cutoff = self.key(pass.cutoff);
        let gives_way = self.host.gives_way();
        let done = self.batch(pass, |all, doing| {
            let args = [Arg::Tids(&tids), cutoff];
            let reaped = match wait {
                true => doing.patiently(|| doing.reap(&all.these, &args))?,
                false if gives_way => giving_way(|| doing.reap(&all.these_unlocked, &args))?,
                false => doing.reap(&all.these_unlocked, &args)?,
            };
            Ok((reaped, ()))
        });
        done.map(|(reaped, ())| reaped)
    }

    fn reads_all(&self) -> bool {
        self.filter_raises
    }

    fn cancelled(&mut self, rows: usize, why: &Stop) {
        if let Stop::Failed(failure) = why {
            self.host.timed_out(self.target, rows, failure);
        }
    }

    fn read_over(&mut self) {
        self.read_over += self.last_read;
    }

    fn why(&self, stop: &Stop, again: bool) -> Option<Why> {
        match stop {
            // Cancelled before its time: by somebody who waits, or by hand.
            Stop::Failed(failure) if !again && self.host.made_way(failure) => None,
            Stop::Failed(failure) => {
                let detail = failure.detail.iter().map(|detail| format!(": {detail}"));
                let message = std::iter::once(failure.message.clone()).chain(detail).collect();
                Some(Why { message, sqlstate: failure.sqlstate() })
            }
            Stop::NotLeading | Stop::Altered => None,
        }
    }

    fn full(&self, held: usize, stop: Stop) -> Stop {
        match stop {
            Stop::Failed(failure) => {
                let what = format!("{held} rows of it are in quarantine, and one more failed");
                let hint = "Mend what the errors in pg_reaper_quarantine name, and \
                            pg_reaper_sweep() tries all its rows again; or raise \
                            pg_reaper.quarantine_limit.";
                Stop::Failed(failure.of(&what, hint))
            }
            Stop::NotLeading | Stop::Altered => stop,
        }
    }

    fn should_yield(&mut self) -> bool {
        self.host.should_yield()
    }
}

pub fn key(row: &Row, of: ColumnType) -> Result<ServerTime, Failure> {
    required(row.key(1, of), "deadline")
}

fn due(row: &Row, of: ColumnType) -> Result<Due, Failure> {
    Ok(Due { deadline: key(row, of)?, tid: tid(required(row.tid(2), "ctid")?) })
}

/// A tid from how PostgreSQL keeps it.
pub fn tid(pointer: pg_sys::ItemPointerData) -> Tid {
    let block = (u32::from(pointer.ip_blkid.bi_hi) << 16) | u32::from(pointer.ip_blkid.bi_lo);
    Tid { block, offset: pointer.ip_posid }
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
