//! Acquire, renew, step down, release: the moves of [`crate::decide::lease`], made in
//! transactions of their own, and said in the log.

use super::clock::server_now;
use super::extension::Extension;
use super::failure::Failure;
use super::held::{Held, hold, named, release_held};
use super::transaction::in_transaction;
use super::{lease_lock, lease_row};
use crate::decide::Ticks;
use crate::decide::config::{Leadership as Kind, Settings};
use crate::decide::lease::{Reason, Sight, Standing, Term, Verdict, claim, judge, stamp_due};
use pgrx::{log, warning};
use std::time::Duration;

/// A worker's leadership.
pub struct Leadership {
    /// Our id: new with every start of a worker.
    me: String,
    standing: Standing,
    /// The highest term seen, so that a row that was deleted is put back without reissuing one.
    last_term: i64,
    /// The broken state of the lease table that was complained about last.
    complained: Option<Sight>,
    /// What the standing refers to; `None` until there is an extension.
    of: Option<(Extension, Kind)>,
}

/// What the fence says to a batch.
pub enum Fence {
    /// The lease is ours, and cannot be taken until the batch ends.
    Open {
        /// The stamp has aged: renew it as the last statement.
        stamp_due: bool,
    },
    Closed(Verdict),
}

impl Leadership {
    pub fn new(me: String) -> Self {
        Leadership { me, standing: Standing::Standby, last_term: 0, complained: None, of: None }
    }

    /// Whether we may act at `now`.
    pub fn acts(&self, now: Ticks) -> bool {
        self.standing.acting(now).is_some()
    }

    /// Whether more than half of the trust in what is held is used up.
    pub fn ageing(&self, now: Ticks, lease: Duration) -> bool {
        self.standing.term().is_some_and(|term| now + lease / 2 > term.trusted_until)
    }

    /// The term held by the lease row; `None` on a standby and under a session lock.
    pub fn term(&self) -> Option<i64> {
        let by_row = matches!(self.of, Some((_, Kind::Lease)));
        self.standing.term().filter(|_| by_row).map(|term| term.number)
    }

    fn stand(&mut self, standing: Standing, lease_duration: Duration) {
        let held = standing.term().zip(self.of.as_ref()).map(|(term, (extension, kind))| Held {
            extension: extension.clone(),
            kind: *kind,
            me: self.me.clone(),
            term: term.clone(),
            lease_duration,
        });
        hold(held);
        self.standing = standing;
    }

    /// One turn: renews what is held, and acquires when nothing is. An error leaves leadership in
    /// doubt, and is returned for the worker to report.
    pub fn turn(
        &mut self,
        extension: &Extension,
        settings: &Settings,
        now: &dyn Fn() -> Ticks,
    ) -> Result<(), Failure> {
        let of = (extension.clone(), settings.leadership);
        match &self.of {
            Some(held) if *held == of => {}
            Some((held, _)) if held == extension => {
                self.release("leadership is taken otherwise now")
            }
            Some((held, _)) if held.oid == extension.oid => {
                self.step_down(Reason::Told("the lease table is another one now"));
            }
            Some(_) => self.extension_gone(),
            None => {}
        }
        self.of = Some(of);
        let lease = settings.lease_duration;
        let outcome = match settings.leadership {
            Kind::Lease => self.turn_row(extension, lease, now),
            Kind::Advisory => self.turn_lock(extension, lease),
        };
        if outcome.is_err() {
            self.doubt(now(), lease);
        }
        outcome
    }

    /// The extension, and its lease with it, is gone.
    pub fn extension_gone(&mut self) {
        self.step_down(Reason::Told("the extension was dropped"));
        *self = Leadership::new(std::mem::take(&mut self.me));
    }

    fn renew_row(
        &mut self,
        extension: &Extension,
        lease: Duration,
        now: &dyn Fn() -> Ticks,
    ) -> Result<(), Failure> {
        let Some(term) = self.standing.term().cloned() else { return Ok(()) };
        let started = now();
        match in_transaction(|| renew(extension, &self.me, &term))? {
            Verdict::Ours => self.stamped(started, lease),
            verdict => self.refused(verdict, now(), lease),
        }
        Ok(())
    }

    fn turn_row(
        &mut self,
        extension: &Extension,
        lease: Duration,
        now: &dyn Fn() -> Ticks,
    ) -> Result<(), Failure> {
        self.renew_row(extension, lease, now)?;
        if self.standing.term().is_some() {
            return Ok(());
        }
        let started = now();
        let sight = in_transaction(|| lease_row::look(extension))?;
        self.complain(&sight);
        match &sight {
            Sight::Row(row) => self.last_term = self.last_term.max(row.term),
            Sight::Missing if extension.lease_table.is_some() => {
                in_transaction(|| lease_row::restore(extension, self.last_term))?;
            }
            _ => return Ok(()),
        }
        if matches!(&sight, Sight::Row(row) if claim(row, server_now(), lease).is_none()) {
            return Ok(());
        }
        if let Some(number) = in_transaction(|| acquire(extension, &self.me, lease))? {
            self.last_term = number;
            self.stand(Standing::stamped(number, started, lease), lease);
            log!("pg_reaper acquired the lease: leader {:?}, term {number}", self.me);
        }
        Ok(())
    }

    fn turn_lock(&mut self, extension: &Extension, lease: Duration) -> Result<(), Failure> {
        let held = in_transaction(|| Ok(lease_lock::ensure(extension)))?;
        match (held, &self.standing) {
            (true, Standing::Leader(_)) | (false, Standing::Standby) => {}
            (true, _) => {
                self.stand(Standing::stamped(0, Ticks::ZERO, Duration::MAX), lease);
                log!("pg_reaper acquired the leadership lock: leader {:?}", self.me);
            }
            (false, _) => self.step_down(Reason::Told("another worker holds the leadership lock")),
        }
        Ok(())
    }

    /// A transaction was rolled back: a session lock is gone with it, and a stamp was not made.
    /// Makes sure of what is held, so that nobody acts, or is said to lead, on something lost, and
    /// no row of failures lets the lease lapse.
    pub fn reassure(&mut self, settings: &Settings, now: &dyn Fn() -> Ticks) {
        let Some((extension, _)) = self.of.clone() else { return };
        if self.standing.term().is_none() {
            return;
        }
        let lease = settings.lease_duration;
        let outcome = match settings.leadership {
            Kind::Lease => self.renew_row(&extension, lease, now),
            Kind::Advisory => self.turn_lock(&extension, lease),
        };
        if outcome.is_err() {
            self.doubt(now(), lease);
        }
    }

    /// Makes sure, within the transaction of a batch, that it may commit.
    pub fn fence(&self, lease: Duration) -> Result<Fence, Failure> {
        let (Some((extension, kind)), Some(term)) = (&self.of, self.standing.term()) else {
            return Ok(Fence::Closed(Verdict::InDoubt));
        };
        let sight = match kind {
            Kind::Advisory if lease_lock::ensure(extension) => {
                return Ok(Fence::Open { stamp_due: false });
            }
            Kind::Advisory => Sight::Locked,
            Kind::Lease => lease_row::lock(extension)?,
        };
        Ok(match (judge(&self.me, term, &sight), sight) {
            (Verdict::Ours, Sight::Row(row)) => {
                Fence::Open { stamp_due: stamp_due(row.acquired_at, server_now(), lease) }
            }
            (verdict, _) => Fence::Closed(verdict),
        })
    }

    /// Stamps the row as the last statement of a batch that the fence let through.
    pub fn stamp(&self) -> Result<(), Failure> {
        if let (Some((extension, _)), Some(term)) = (&self.of, self.standing.term())
            && lease_row::stamp(extension, &self.me, term)?
        {
            return Ok(());
        }
        Err(Failure::internal("the lease row changed under its lock"))
    }

    /// A transaction that began at `started` has committed our stamp.
    pub fn stamped(&mut self, started: Ticks, lease: Duration) {
        if let Some(number) = self.standing.term().map(|term| term.number) {
            self.stand(Standing::stamped(number, started, lease), lease);
        }
    }

    /// The lease was not found to be ours.
    pub fn refused(&mut self, verdict: Verdict, now: Ticks, lease: Duration) {
        match verdict {
            Verdict::NotOurs(reason) => self.step_down(reason),
            Verdict::InDoubt | Verdict::Ours => self.doubt(now, lease),
        }
    }

    fn doubt(&mut self, now: Ticks, lease: Duration) {
        match self.standing.clone().doubted(now) {
            (_, Some(reason)) => self.step_down(reason),
            (standing, None) => self.stand(standing, lease),
        }
    }

    fn step_down(&mut self, reason: Reason) {
        if let Some(term) = self.standing.term() {
            warning!("pg_reaper stepped down from {}: {reason}", named(term));
        }
        self.stand(Standing::Standby, Duration::ZERO);
    }

    /// Says once that the lease table is broken, and once that it has healed.
    fn complain(&mut self, sight: &Sight) {
        let broken = matches!(sight, Sight::Missing | Sight::Doubled).then(|| sight.clone());
        if broken == self.complained {
            return;
        }
        match &broken {
            Some(Sight::Missing) => warning!("pg_reaper: the lease row is gone"),
            Some(_) => warning!("pg_reaper: the lease has more than one row, so nobody can lead"),
            None => log!("pg_reaper: the lease is whole again"),
        }
        self.complained = broken;
    }

    /// Gives the lease back, so that a standby takes over at once. Never waits for a lock.
    pub fn release(&mut self, why: &str) {
        release_held(why);
        self.standing = Standing::Standby;
    }
}

fn renew(extension: &Extension, me: &str, term: &Term) -> Result<Verdict, Failure> {
    let mut sight = lease_row::lock(extension)?;
    if sight == Sight::Locked && lease_row::look(extension)? == Sight::Missing {
        sight = Sight::Missing;
    }
    let verdict = judge(me, term, &sight);
    if verdict == Verdict::Ours && !lease_row::stamp(extension, me, term)? {
        return Ok(Verdict::InDoubt);
    }
    Ok(verdict)
}

fn acquire(extension: &Extension, me: &str, lease: Duration) -> Result<Option<i64>, Failure> {
    match lease_row::lock(extension)? {
        Sight::Row(row) if claim(&row, server_now(), lease).is_some() => {
            lease_row::acquire(extension, me, &row).map(Some)
        }
        _ => Ok(None),
    }
}
