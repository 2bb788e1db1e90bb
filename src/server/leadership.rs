//! Acquire, renew, step down, release: the moves of [`crate::decide::lease`], made in
//! transactions of their own, and said in the log.

use super::clock::server_now;
use super::complaints::Complaints;
use super::extension::Extension;
use super::failure::Failure;
use super::held::{Held, Object, hold, release_held};
use super::lease_table::LeaseTable;
use super::moves::{acquire, moved, renew};
use super::transaction::in_transaction;
use super::{lease_lock, lease_row, say};
use crate::decide::Ticks;
use crate::decide::config::{Leadership as Kind, Settings};
use crate::decide::lease::{Reason, Sight, Standing, Verdict, claim, judge, stamp_due};
use std::time::Duration;

/// A worker's leadership.
pub struct Leadership {
    /// Our id: new with every start of a worker and, in a table without terms, with every
    /// acquisition.
    me: String,
    /// What our ids begin with.
    base: String,
    acquisitions: u64,
    standing: Standing,
    /// The highest term seen, so that a row that was deleted is put back without reissuing one.
    last_term: i64,
    complaints: Complaints,
    /// What the standing refers to; `None` until there is an extension.
    of: Option<Object>,
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
        Leadership {
            base: me.clone(),
            me,
            acquisitions: 0,
            standing: Standing::Standby,
            last_term: 0,
            complaints: Complaints::default(),
            of: None,
        }
    }

    /// Whether the lease could not be had only because somebody holds it locked just now.
    pub fn held_up(&self) -> bool {
        self.complaints.held_up()
    }

    /// Our id.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Whether we may act at `now`.
    pub fn acts(&self, now: Ticks) -> bool {
        self.standing.acting(now).is_some()
    }

    /// Whether more than half of the trust in what is held is used up.
    pub fn ageing(&self, now: Ticks, lease: Duration) -> bool {
        self.standing.term().is_some_and(|term| now + lease / 2 > term.trusted_until)
    }

    /// The number of the term that is held; `None` on a standby, and where terms have none: under
    /// a session lock, and in another's table.
    pub fn term(&self) -> Option<i64> {
        self.standing.term().map(|term| term.number).filter(|&number| number > 0)
    }

    fn table(&self) -> Option<&LeaseTable> {
        self.of.as_ref().and_then(|object| object.table.as_ref())
    }

    fn stand(&mut self, standing: Standing, lease_duration: Duration) {
        let held = standing.term().zip(self.of.as_ref()).map(|(term, object)| Held {
            object: object.clone(),
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
        let lease = settings.lease_duration;
        let setting = &settings.lease_table;
        let table = match settings.leadership {
            Kind::Advisory => Ok(None),
            Kind::Lease if setting.is_empty() => Ok(LeaseTable::own(extension)),
            Kind::Lease => in_transaction(|| LeaseTable::shared(setting)),
        };
        if table.is_err() && self.of.as_ref().is_some_and(|of| of.setting != *setting) {
            self.release("pg_reaper.lease_table names another table now");
        }
        let outcome = table.and_then(|table| {
            self.about(
                Object {
                    extension: extension.clone(),
                    kind: settings.leadership,
                    setting: setting.clone(),
                    table,
                },
                lease,
            );
            match settings.leadership {
                Kind::Lease => self.turn_row(lease, now),
                Kind::Advisory => self.turn_lock(extension, lease),
            }
        });
        if outcome.is_err() {
            self.doubt(now(), lease);
        }
        outcome
    }

    /// Leadership is about `object` from now on.
    fn about(&mut self, object: Object, lease: Duration) {
        match &self.of {
            Some(before) if before.is(&object) => {}
            Some(before) if before.extension.oid != object.extension.oid => self.extension_gone(),
            // The table was dropped: there is nothing left to release.
            Some(before) if before.kind == object.kind && before.setting == object.setting => {
                self.step_down(Reason::Told("the lease table is another one now"));
            }
            Some(_) => self.release("leadership is taken otherwise now"),
            None => {}
        }
        let renamed = self.table() != object.table.as_ref();
        self.of = Some(object);
        if renamed {
            // What is held is given back under the name that its table has now.
            self.stand(self.standing.clone(), lease);
        }
    }

    /// The extension, and its lease with it, is gone.
    pub fn extension_gone(&mut self) {
        if self.of.as_ref().is_some_and(Object::shared) {
            self.release("the extension was dropped");
        }
        self.step_down(Reason::Told("the extension was dropped"));
        let acquisitions = self.acquisitions;
        *self = Leadership { acquisitions, ..Leadership::new(std::mem::take(&mut self.base)) };
    }

    fn renew_row(&mut self, lease: Duration, now: &dyn Fn() -> Ticks) -> Result<(), Failure> {
        let Some(term) = self.standing.term().cloned() else { return Ok(()) };
        let Some(table) = self.table() else {
            self.refused(judge(&self.me, &term, &Sight::Missing), now(), lease);
            return Ok(());
        };
        let started = now();
        match moved(table, lease, || renew(table, &self.me, &term))? {
            Verdict::Ours => self.stamped(started, lease),
            verdict => self.refused(verdict, now(), lease),
        }
        Ok(())
    }

    fn turn_row(&mut self, lease: Duration, now: &dyn Fn() -> Ticks) -> Result<(), Failure> {
        self.renew_row(lease, now)?;
        if self.standing.term().is_some() {
            return Ok(());
        }
        let started = now();
        let Some(table) = self.table().cloned() else {
            self.complaints.note(&Sight::Missing, self.of.as_ref());
            return Ok(());
        };
        let sight = moved(&table, lease, || lease_row::look(&table))?;
        self.complaints.note(&sight, self.of.as_ref());
        let free = match &sight {
            Sight::Row(row) => {
                self.last_term = self.last_term.max(row.term);
                claim(row, server_now(), lease).is_some()
            }
            Sight::Missing if !table.shared => {
                in_transaction(|| lease_row::restore(&table, self.last_term))?;
                true
            }
            _ => false,
        };
        if !free {
            self.complaints.note_held_up(sight == Sight::Locked, started, lease);
            return Ok(());
        }
        let me = match table.shared {
            true => format!("{}#{}", self.base, self.acquisitions + 1),
            false => self.base.clone(),
        };
        let acquired = moved(&table, lease, || acquire(&table, &me, lease))?;
        self.complaints.note_held_up(acquired.is_none(), started, lease);
        if let Some(number) = acquired {
            self.acquisitions += 1;
            self.last_term = self.last_term.max(number);
            self.me = me;
            self.stand(Standing::stamped(number, started, lease), lease);
            say::log(match table.shared {
                true => {
                    format!("pg_reaper acquired the lease {}: leader {:?}", table.name, self.me)
                }
                false => {
                    format!("pg_reaper acquired the lease: leader {:?}, term {number}", self.me)
                }
            });
        }
        Ok(())
    }

    fn turn_lock(&mut self, extension: &Extension, lease: Duration) -> Result<(), Failure> {
        let held = in_transaction(|| Ok(lease_lock::ensure(extension)))?;
        match (held, &self.standing) {
            (true, Standing::Leader(_)) | (false, Standing::Standby) => {}
            (true, _) => {
                self.stand(Standing::stamped(0, Ticks::ZERO, Duration::MAX), lease);
                say::log(format!("pg_reaper acquired the leadership lock: leader {:?}", self.me));
            }
            (false, _) => self.step_down(Reason::Told("another worker holds the leadership lock")),
        }
        Ok(())
    }

    /// A transaction was rolled back: a session lock is gone with it, and a stamp was not made.
    /// Makes sure of what is held, so that nobody acts, or is said to lead, on something lost, and
    /// no row of failures lets the lease lapse.
    pub fn reassure(&mut self, settings: &Settings, now: &dyn Fn() -> Ticks) {
        let Some(object) = self.of.clone() else { return };
        if self.standing.term().is_none() {
            return;
        }
        let lease = settings.lease_duration;
        let outcome = match settings.leadership {
            Kind::Lease => self.renew_row(lease, now),
            Kind::Advisory => self.turn_lock(&object.extension, lease),
        };
        if outcome.is_err() {
            self.doubt(now(), lease);
        }
    }

    /// Makes sure, within the transaction of a batch, that it may commit.
    pub fn fence(&self, lease: Duration) -> Result<Fence, Failure> {
        let (Some(object), Some(term)) = (&self.of, self.standing.term()) else {
            return Ok(Fence::Closed(Verdict::InDoubt));
        };
        let sight = match (object.kind, &object.table) {
            (Kind::Advisory, _) if lease_lock::ensure(&object.extension) => {
                return Ok(Fence::Open { stamp_due: false });
            }
            (Kind::Advisory, _) => Sight::Locked,
            (Kind::Lease, None) => Sight::Missing,
            (Kind::Lease, Some(table)) => lease_row::lock(table)?,
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
        if let (Some(table), Some(term)) = (self.table(), self.standing.term())
            && lease_row::stamp(table, &self.me, term)?
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
        if let (Some(term), Some(object)) = (self.standing.term(), &self.of) {
            say::warn(format!("pg_reaper stepped down from {}: {reason}", object.named(term)));
        }
        self.stand(Standing::Standby, Duration::ZERO);
    }

    /// Gives the lease back, so that a standby takes over at once. Never waits for a lock.
    pub fn release(&mut self, why: &str) {
        release_held(why);
        self.standing = Standing::Standby;
    }
}
