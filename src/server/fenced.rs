//! The worker as the host of a pass: each batch a transaction behind the fence.

use super::clock::ticks;
use super::exit::Functions;
use super::extension::Extension;
use super::failure::Failure;
use super::leadership::{Fence, Leadership};
use super::meaning;
use super::pass::{Host, Stop};
use super::relation::{Patience, hold_still};
use super::sandbox::{Restriction, set_locally};
use super::status::Place;
use super::target::Target;
use super::transaction::in_transaction;
use super::{brake, dawdle, exit, policies, process, say, signals, sql, tally, timeouts};
use crate::decide::Ticks;
use crate::decide::config::Settings;
use crate::decide::lease::Verdict;
use crate::decide::rate::Rate;
use crate::decide::refusal::Refusal;
use crate::decide::rest::Pacing;
use pgrx::{PgLogLevel, pg_sys};
use std::time::Duration;

/// The worker, sweeping one table.
pub struct Fenced<'a> {
    extension: &'a Extension,
    leadership: &'a mut Leadership,
    settings: &'a Settings,
    place: &'a Place,
    patience: &'a Patience,
    until: Ticks,
    /// How long the last read or batch took.
    took: Duration,
    /// How often somebody had asked for a cancellation when it began.
    cancels: u32,
    /// Somebody has cancelled the last one that failed, before its time was up.
    cancelled: bool,
    /// The last batch was durable when it had committed, and so is all before it.
    durable: bool,
    pacing: &'a mut Pacing,
    /// Of the table's policy.
    rate: &'a mut Rate,
}

/// What slows the batches of a table down.
pub struct Paced<'a> {
    pub pacing: &'a mut Pacing,
    /// Of its policy.
    pub rate: &'a mut Rate,
}

impl<'a> Fenced<'a> {
    pub fn new(
        extension: &'a Extension,
        leadership: &'a mut Leadership,
        settings: &'a Settings,
        place: &'a Place,
        patience: &'a Patience,
        until: Ticks,
        Paced { pacing, rate }: Paced<'a>,
    ) -> Self {
        Fenced {
            extension,
            leadership,
            settings,
            place,
            patience,
            until,
            took: Duration::ZERO,
            cancels: 0,
            cancelled: false,
            durable: false,
            pacing,
            rate,
        }
    }

    pub fn pacing(&mut self) -> &mut Pacing {
        self.pacing
    }

    pub fn rate(&self) -> &Rate {
        self.rate
    }

    /// The last read or batch failed.
    fn failed(&mut self) {
        // In whole milliseconds, as the timer counts.
        let early = self.took.as_millis() < self.settings.statement_limit().as_millis();
        self.cancelled = early && signals::cancels() != self.cancels;
    }

    /// Runs one transaction under both timers. Should a function of the table's end the process
    /// within, the next one must know whose it was.
    fn limited<T>(
        target: &Target,
        settings: &Settings,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (table, root) = (target.relation, target.root);
        exit::running(Some(Functions::OfTable { table, root }));
        let outcome = timeouts::limited(settings.statement_limit(), || in_transaction(work));
        exit::running(None);
        outcome
    }
}

impl Host for Fenced<'_> {
    fn read<T>(
        &mut self,
        target: &Target,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let started = ticks();
        self.cancels = signals::cancels();
        let patience = self.patience;
        let outcome = Self::limited(target, self.settings, || {
            hold_still(target, pg_sys::AccessShareLock, Some(patience))?;
            work()
        });
        self.took = ticks().saturating_sub(started);
        if outcome.is_err() {
            self.failed();
            self.leadership.reassure(self.settings, &ticks);
        }
        outcome
    }

    fn batch<T>(
        &mut self,
        target: &Target,
        told: bool,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Stop> {
        let started = ticks();
        // A cutoff that was read from a clock that had leapt is seen here, before it does harm.
        if !self.leadership.acts(started) || brake::holds(self.settings).is_some() {
            return Err(Stop::NotLeading);
        }
        self.cancels = signals::cancels();
        let lease = self.settings.lease_duration;
        let mut fence = None;
        let mut stands = true;
        let extension = self.extension;
        let leadership = &*self.leadership;
        let durable = &mut self.durable;
        let patience = self.patience;
        let outcome = Self::limited(target, self.settings, || {
            // Before the lease row, in the order of DROP EXTENSION.
            let reacts = hold_still(target, pg_sys::RowExclusiveLock, Some(patience))?.reacts;
            stands = policies::still_stands(extension, target)?;
            if !stands {
                return Err(Refusal::PolicyChanged { policy: target.policy }.into());
            }
            let fence = fence.insert(Fence::Closed(Verdict::InDoubt));
            *fence = leadership.fence(lease)?;
            let Fence::Open { stamp_due } = *fence else {
                return Err(Failure::internal("the fence is closed"));
            };
            if reacts {
                // Constraints that are deferred would fire in a context that forbids it.
                sql::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
            }
            *durable = told || reacts;
            if !*durable {
                commit_without_waiting();
            }
            let done = work()?;
            meaning::see_that_it_still_stands(target)?;
            if stamp_due {
                leadership.stamp()?;
            }
            Ok(done)
        });
        self.took = ticks().saturating_sub(started);
        if !stands {
            self.leadership.reassure(self.settings, &ticks);
            return Err(Stop::Altered);
        }
        match (fence, outcome) {
            (Some(Fence::Closed(verdict)), _) => {
                self.leadership.refused(verdict, ticks(), lease);
                Err(Stop::NotLeading)
            }
            (_, Err(failure)) => {
                self.failed();
                self.leadership.reassure(self.settings, &ticks);
                Err(Stop::Failed(failure))
            }
            (Some(Fence::Open { stamp_due: true }), Ok(done)) => {
                self.leadership.stamped(started, lease);
                Ok(done)
            }
            (_, Ok(done)) => Ok(done),
        }
    }

    fn timed_out(&mut self, target: &Target, rows: usize, failure: &Failure) {
        if self.made_way(failure) {
            say::log(format!(
                "a batch of {rows} rows of {} was cancelled to make way for somebody else, and is \
                 tried again at half its size",
                target.called
            ));
            return;
        }
        failure.clone().advised().report_as(
            PgLogLevel::WARNING,
            format!(
                "a batch of {rows} rows of {} did not go through and is tried again at half its size: {}",
                target.called, failure.message
            ),
        );
        let message = format!("{}: {}", target.called, failure.message);
        self.place.tell_error(&message, &failure.sqlstate());
    }

    fn made_way(&self, failure: &Failure) -> bool {
        failure.is_cancel() && self.cancelled
    }

    fn extension(&self) -> &Extension {
        self.extension
    }

    fn gives_way(&self) -> bool {
        true
    }

    fn restriction(&self, _owner: pg_sys::Oid) -> Restriction {
        Restriction::Full
    }

    fn reaped(&mut self, rows: u64) {
        dawdle::here();
        self.rate.reaped(rows, ticks());
        tally::note(rows);
        if self.durable {
            tally::settle(self.place);
        }
    }

    fn settle(&mut self) {
        dawdle::here();
        tally::settle(self.place);
    }

    fn should_yield(&mut self) -> bool {
        let now = ticks();
        self.pacing.worked(now, self.took, self.settings.duty_cycle);
        let pause = self.pacing.rest(self.until.saturating_sub(now));
        if !pause.is_zero() {
            process::nap(pause);
        } else {
            process::end_with_postmaster();
        }
        let now = ticks();
        now >= self.until || self.rate.must_wait(now) || process::reload_pending()
    }
}

/// Has the transaction commit without waiting for the disk. A crash may undo it, together with all
/// that came after it, and then its rows are reaped once more. That is all: what is logged, counted
/// or can be told by a trigger of the table's waits for the disk. Nor can a stamp of the lease that is
/// lost do harm: whoever relied on it went down in the same crash, terms are handed out by
/// transactions that do wait, and an older stamp only has the lease run out sooner.
fn commit_without_waiting() {
    set_locally(c"synchronous_commit", c"off");
}
