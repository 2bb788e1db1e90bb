//! The worker as the host of a pass: each batch a transaction behind the fence.

use super::clock::ticks;
use super::exit::Functions;
use super::failure::Failure;
use super::leadership::{Fence, Leadership};
use super::pass::{Host, Stop};
use super::relation::hold_still;
use super::sandbox::Restriction;
use super::status::Place;
use super::target::Target;
use super::transaction::in_transaction;
use super::{exit, process, say, sql, timeouts};
use crate::decide::Ticks;
use crate::decide::config::Settings;
use crate::decide::lease::Verdict;
use crate::decide::rate::Rate;
use crate::decide::rest::{self, Rest};
use pgrx::{PgLogLevel, pg_sys};
use std::time::Duration;

/// The worker, sweeping one table.
pub struct Fenced<'a> {
    pub leadership: &'a mut Leadership,
    pub settings: &'a Settings,
    pub place: &'a Place,
    pub until: Ticks,
    /// How long the last read or batch took.
    pub took: Duration,
    pub rate: &'a mut Rate,
    pub rest: &'a mut Rest,
    /// How long there has been a backlog.
    pub backlog: Duration,
}

impl Fenced<'_> {
    /// Whether `failure` of the last read or batch is a cancellation before its time: by somebody
    /// who has waited for a lock of ours, or by hand.
    pub fn made_way(&self, failure: &Failure) -> bool {
        failure.is_cancel() && self.took < self.settings.statement_limit()
    }

    /// Runs one transaction under both timers. Should a function of the table's end the process
    /// within, the next one must know whose it was.
    fn limited<T>(
        target: &Target,
        settings: &Settings,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        exit::running(Some(Functions::OfTable(target.relation)));
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
        let outcome = Self::limited(target, self.settings, || {
            hold_still(target, pg_sys::AccessShareLock)?;
            work()
        });
        self.took = ticks().saturating_sub(started);
        if outcome.is_err() {
            self.leadership.reassure(self.settings, &ticks);
        }
        outcome
    }

    fn batch<T>(
        &mut self,
        target: &Target,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Stop> {
        let started = ticks();
        if !self.leadership.acts(started) {
            return Err(Stop::NotLeading);
        }
        let lease = self.settings.lease_duration;
        let mut fence = None;
        let leadership = &*self.leadership;
        let outcome = Self::limited(target, self.settings, || {
            // Before the lease row, in the order of DROP EXTENSION.
            hold_still(target, pg_sys::RowExclusiveLock)?;
            let fence = fence.insert(Fence::Closed(Verdict::InDoubt));
            *fence = leadership.fence(lease)?;
            let Fence::Open { stamp_due } = *fence else {
                return Err(Failure::internal("the fence is closed"));
            };
            // Constraints that are deferred would fire in a context that forbids it.
            sql::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
            let done = work()?;
            if stamp_due {
                leadership.stamp()?;
            }
            Ok(done)
        });
        self.took = ticks().saturating_sub(started);
        match (fence, outcome) {
            (Some(Fence::Closed(verdict)), _) => {
                self.leadership.refused(verdict, ticks(), lease);
                Err(Stop::NotLeading)
            }
            (_, Err(failure)) => {
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
                target.name
            ));
            return;
        }
        failure.clone().advised().report_as(
            PgLogLevel::WARNING,
            format!(
                "a batch of {rows} rows of {} took too long and is tried again at half its size: {}",
                target.name, failure.message
            ),
        );
        let message = format!("{}: {}", target.name, failure.message);
        self.place.tell_error(&message, &failure.sqlstate());
    }

    fn restriction(&self, _owner: pg_sys::Oid) -> Restriction {
        Restriction::Full
    }

    fn reaped(&mut self, rows: u64) {
        self.rate.reaped(rows, ticks());
        self.place.tell(|slot| slot.rows_reaped += rows as i64);
    }

    fn should_yield(&mut self) -> bool {
        self.rest.worked(self.took, rest::share(self.settings.duty_cycle, self.backlog));
        let rest = self.rest.take(self.until.saturating_sub(ticks()));
        if !rest.is_zero() {
            process::nap(rest);
        }
        let now = ticks();
        now >= self.until || self.rate.must_wait(now) || process::reload_pending()
    }
}
