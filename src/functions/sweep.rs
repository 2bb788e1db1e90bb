//! `pg_reaper_sweep()`: one sweep now, in the caller's transaction.
//!
//! It runs the same passes as the worker, whoever leads: rows are locked one by one, so sweeps at
//! the same time reap disjoint rows.

use super::answer;
use crate::decide::config::Settings;
use crate::decide::refusal::Refusal;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::meaning;
use crate::server::memory::Memory;
use crate::server::pass::{self, Host, Limits, Stop};
use crate::server::policies;
use crate::server::relation::hold_still;
use crate::server::sandbox::{self, Restriction};
use crate::server::target::Target;
use crate::server::transaction::in_subtransaction;
use crate::server::{blocks, board, brake, say, settings};
use pgrx::PgLogLevel;
use pgrx::prelude::*;

/// Sweeps every policy, or the one of `relation`; returns how many rows were reaped.
///
/// A policy that fails is rolled back and reported: as a WARNING where there are others, as an
/// error where it was asked for by name.
#[pg_extern(sql = false)]
fn pg_reaper_sweep(relation: Option<pg_sys::Oid>, max_rows: Option<i64>) -> i64 {
    answer(|| sweep(relation.map(Asked::Table), max_rows))
}

/// As [`pg_reaper_sweep`], also for one policy by its id. It has a name of its own in the library,
/// which an extension of version 0.1.0 calls with two parameters.
#[pg_extern(sql = false)]
fn pg_reaper_sweep_policy(
    relation: Option<pg_sys::Oid>,
    max_rows: Option<i64>,
    policy: Option<i64>,
) -> i64 {
    answer(|| match (relation, policy) {
        (Some(_), Some(_)) => Err(Refusal::TableAndPolicy.into()),
        (_, Some(policy)) => sweep(Some(Asked::Policy(policy)), max_rows),
        (relation, None) => sweep(relation.map(Asked::Table), max_rows),
    })
}

/// What is to be swept alone.
#[derive(Clone, Copy)]
pub enum Asked {
    Table(pg_sys::Oid),
    Policy(i64),
}

fn sweep(asked: Option<Asked>, max_rows: Option<i64>) -> Result<i64, Failure> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Refusal::InRecovery.into());
    }
    // SAFETY: raises an error in a read-only transaction.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"pg_reaper_sweep()".as_ptr()) };
    let max_rows = match max_rows {
        None => u64::MAX,
        Some(rows) => {
            u64::try_from(rows).map_err(|_| Refusal::NegativeMaxRows { max_rows: rows })?
        }
    };
    let settings = settings::read();
    board::attach();
    brake::refuse(&settings)?;
    let extension = Extension::expect()?;
    let mut targets = targets(asked)?;
    if asked.is_some()
        && let Some(target) = targets.first().filter(|_| targets.iter().all(|t| !t.enabled))
    {
        return Err(Refusal::NotEnabled { policy: target.policy }.into());
    }
    targets.retain(|target| target.enabled);
    let mut host = Caller { settings: &settings, extension: &extension, reaped: 0 };
    sandbox::with_lock_timeout(settings.lock_limit(), || {
        for target in &targets {
            match one(&mut host, target, &settings, max_rows) {
                Err(failure) if asked.is_some() => return Err(failure),
                Err(failure) => complain(target, failure),
                Ok(()) => {}
            }
        }
        // Another version of a policy, so not before all its leaves are done.
        targets.iter().try_for_each(|target| policies::keep_meaning(&extension, target))
    })?;
    Ok(i64::try_from(host.reaped).unwrap_or(i64::MAX))
}

/// What to sweep: what was asked for, enabled or not, or else all that is enabled and that the
/// caller may act for.
pub fn targets(asked: Option<Asked>) -> Result<Vec<Target>, Failure> {
    let extension = Extension::expect()?;
    let all =
        sandbox::as_owner(extension.author, Restriction::Full, || policies::load(&extension))?;
    let caller = sandbox::current_user();
    let mut targets = all.targets;
    if let Some(asked) = asked {
        let named = match asked {
            Asked::Table(relation) => policies::of(&extension, relation)?,
            Asked::Policy(policy) => policies::by_id(&extension, policy)?.into_iter().collect(),
        };
        if named.is_empty() {
            return Err(match asked {
                Asked::Table(oid) => Refusal::NotAdopted { relation: policies::name_of(oid)? },
                Asked::Policy(policy) => Refusal::NoPolicy { policy },
            }
            .into());
        }
        targets.retain(|target| named.iter().any(|policy| policy.id == target.policy));
        if let Some(target) = targets.iter().find(|t| !sandbox::may_act_for(caller, t.owner)) {
            return Err(Refusal::NotOwner { relation: target.name.clone() }.into());
        }
        return Ok(targets);
    }
    targets.retain(|target| target.enabled);
    targets.retain(|target| {
        let allowed = sandbox::may_act_for(caller, target.owner);
        if !allowed {
            say::notice(&format!("passing over table {}, whose owner you are not", target.name));
        }
        allowed
    });
    Ok(targets)
}

/// Sweeps one table by both rules, until `max_rows` were reaped in all.
fn one(
    host: &mut Caller,
    target: &Target,
    settings: &Settings,
    max_rows: u64,
) -> Result<(), Failure> {
    let watched = target.watched.as_ref().map_err(Clone::clone)?;
    if !sandbox::session_belongs_to(target.owner)
        && policies::has_deferred_constraints(target.relation)?
    {
        return Err(Refusal::DeferredConstraints { relation: target.name.clone() }.into());
    }
    let mut memory = Memory::new(settings.batch_size);
    let limits = |host: &Caller| Limits {
        by_hand: true,
        ..Limits::of(target, settings, max_rows - host.reaped)
    };
    let room = limits(host);
    settle(pass::expired(host, target, watched, &mut memory, &room))?;
    if host.reaped < max_rows {
        let room = limits(host);
        settle(blocks::stuck(host, target, watched, &mut memory, &room))?;
    }
    Ok(())
}

fn settle<T>(outcome: Result<T, Stop>) -> Result<T, Failure> {
    outcome.map_err(|stop| match stop {
        Stop::Failed(failure) => failure,
        Stop::NotLeading | Stop::Altered => Failure::from(Refusal::NoExtension),
    })
}

fn complain(target: &Target, failure: Failure) {
    let message = format!("sweep of {} failed: {}", target.called, failure.message);
    failure.advised().report_as(PgLogLevel::WARNING, message);
}

/// The caller's transaction as the host of a pass: each batch a subtransaction.
struct Caller<'a> {
    settings: &'a Settings,
    extension: &'a Extension,
    /// Rows reaped so far, whatever failed since.
    reaped: u64,
}

/// A part of a call whose errors are its own.
pub fn contained<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    in_subtransaction(work).map_err(|failure| {
        if failure.is_cancel() {
            // The caller's own wish, or timeout: it ends the call, not a batch.
            failure.raise()
        }
        failure
    })
}

impl Host for Caller<'_> {
    fn read<T>(
        &mut self,
        target: &Target,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        contained(|| {
            hold_still(target, pg_sys::AccessShareLock, None)?;
            work()
        })
    }

    fn batch<T>(
        &mut self,
        target: &Target,
        _told: bool,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Stop> {
        check_for_interrupts!();
        // Its cutoff may have been read after a leap: then the call ends, not a batch.
        brake::refuse(self.settings).unwrap_or_else(|failure| failure.raise());
        let outcome = contained(|| {
            hold_still(target, pg_sys::RowExclusiveLock, None)?;
            let stands = sandbox::as_owner(self.extension.author, Restriction::Full, || {
                policies::still_stands(self.extension, target)
            })?;
            if !stands {
                return Err(Refusal::PolicyChanged { policy: target.policy }.into());
            }
            let done = work()?;
            meaning::see_that_it_still_stands(target)?;
            Ok(done)
        });
        outcome.map_err(Stop::Failed)
    }

    /// A cancellation ends the call, so none comes as far as this.
    fn made_way(&self, _failure: &Failure) -> bool {
        false
    }

    fn extension(&self) -> &Extension {
        self.extension
    }

    /// A cancellation ends the call, so there is none to be told of.
    fn timed_out(&mut self, _target: &Target, _rows: usize, _failure: &Failure) {}

    /// The caller's transaction is somebody's work itself.
    fn gives_way(&self) -> bool {
        false
    }

    fn restriction(&self, owner: pg_sys::Oid) -> Restriction {
        sandbox::restriction_of(owner)
    }

    fn reaped(&mut self, rows: u64) {
        self.reaped += rows;
    }

    /// What becomes durable is the caller's transaction.
    fn settle(&mut self) {}

    fn should_yield(&mut self) -> bool {
        false
    }
}
