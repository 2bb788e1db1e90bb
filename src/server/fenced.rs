//! The worker as the host of a pass: each batch a transaction behind the fence.

use super::clock::ticks;
use super::failure::Failure;
use super::leadership::{Fence, Leadership};
use super::pass::{Host, Stop};
use super::sandbox::Restriction;
use super::status::Place;
use super::transaction::in_transaction;
use super::{exit, process, sql, timeouts};
use crate::decide::Ticks;
use crate::decide::config::Settings;
use crate::decide::lease::Verdict;
use pgrx::pg_sys;

/// The worker, sweeping one table.
pub struct Fenced<'a> {
    pub leadership: &'a mut Leadership,
    pub settings: &'a Settings,
    pub place: &'a Place,
    pub policy: i64,
    pub until: Ticks,
}

impl Fenced<'_> {
    /// Runs one transaction under both timers. Should a function swallow the cancellation, the
    /// process ends within; the next one must know why.
    fn limited<T>(
        policy: i64,
        settings: &Settings,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        exit::sweeping(policy);
        let outcome = timeouts::limited(settings.statement_limit(), || in_transaction(work));
        exit::sweeping(0);
        outcome
    }

    fn reassure(&mut self) {
        self.leadership.reassure(self.settings, &ticks);
    }
}

impl Host for Fenced<'_> {
    fn read<T>(&mut self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = Self::limited(self.policy, self.settings, work);
        if outcome.is_err() {
            self.reassure();
        }
        outcome
    }

    fn batch<T>(&mut self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Stop> {
        let started = ticks();
        if !self.leadership.acts(started) {
            return Err(Stop::NotLeading);
        }
        let lease = self.settings.lease_duration;
        let mut fence = Fence::Closed(Verdict::InDoubt);
        let leadership = &*self.leadership;
        let outcome = Self::limited(self.policy, self.settings, || {
            fence = leadership.fence(lease)?;
            let Fence::Open { stamp_due } = fence else {
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
        match (fence, outcome) {
            (Fence::Closed(verdict), _) => {
                self.leadership.refused(verdict, ticks(), lease);
                Err(Stop::NotLeading)
            }
            (Fence::Open { .. }, Err(failure)) => {
                self.reassure();
                Err(Stop::Failed(failure))
            }
            (Fence::Open { stamp_due }, Ok(done)) => {
                if stamp_due {
                    self.leadership.stamped(started, lease);
                }
                Ok(done)
            }
        }
    }

    fn restriction(&self, _owner: pg_sys::Oid) -> Restriction {
        Restriction::Full
    }

    fn reaped(&mut self, rows: u64) {
        self.place.tell(|slot| slot.rows_reaped += rows as i64);
    }

    fn should_yield(&mut self) -> bool {
        ticks() >= self.until || process::reload_pending()
    }
}
