//! The worker's sweep: every policy that is due, one after the other, each with its failures
//! kept to itself.

use super::clock::ticks;
use super::coming;
use super::failure::Failure;
use super::fenced::{Fenced, Pacing};
use super::leadership::Leadership;
use super::pass::{self, End, Host, Limits, Memory, Stop};
use super::policies;
use super::quarantine;
use super::relation;
use super::target::Target;
use super::transaction::in_transaction;
use super::{brake, extension::Extension, say, status::Place, title};
use crate::decide::config::Settings;
use crate::decide::rate::Rate;
use crate::decide::rota::{self, Visit};
use crate::decide::{Ticks, schedule};
use pgrx::{PgLogLevel, pg_sys};
use std::collections::HashMap;

/// What the sweeps of one worker remember.
#[derive(Default)]
pub struct Rounds {
    memories: HashMap<(i64, pg_sys::Oid), Memory>,
    turns: HashMap<(i64, pg_sys::Oid), Turn>,
    /// Of each policy: its leaves share one.
    rates: HashMap<i64, Rate>,
    troubles: HashMap<(i64, pg_sys::Oid), Trouble>,
}

/// When one table is visited.
#[derive(Default)]
struct Turn {
    /// The table and its policy as they were.
    of: Option<Target>,
    /// Not before this.
    next: Ticks,
    pacing: Pacing,
}

/// A table whose sweep has failed.
#[derive(Clone, Copy)]
struct Trouble {
    failures: u32,
    next_try: Ticks,
}

/// The cycle that a sweep is part of.
struct Cycle<'a> {
    extension: &'a Extension,
    settings: &'a Settings,
    place: &'a Place,
    began: Ticks,
}

/// What one sweep did.
#[derive(Default)]
pub struct Swept {
    /// Every policy was swept to its end, and none failed.
    pub clean: bool,
    /// Failures in a row of the policy that has the most.
    pub failures_in_a_row: u32,
    /// When there is something to do before the next interval.
    pub due: Option<Ticks>,
}

impl Rounds {
    /// Visits all tables at once, those that failed too: somebody changed the settings.
    pub fn forgive(&mut self) {
        for turn in self.turns.values_mut() {
            turn.next = Ticks::ZERO;
        }
        for trouble in self.troubles.values_mut() {
            trouble.next_try = Ticks::ZERO;
        }
        self.memories.values_mut().for_each(Memory::try_again);
    }

    /// The clock has leapt: what was remembered of deadlines may have been read from it.
    pub fn forget(&mut self) {
        self.memories.clear();
        self.turns.clear();
    }

    /// Leaves a table alone for a while.
    fn punish(&mut self, target: &Target, failures: u32, settings: &Settings) {
        let wait = schedule::backoff(failures, settings.interval, schedule::LONGEST_BACKOFF);
        let trouble = Trouble { failures, next_try: ticks() + wait };
        self.troubles.insert((target.policy, target.relation), trouble);
    }

    /// One sweep, by a leader, in the cycle that `began` then.
    pub fn sweep(
        &mut self,
        extension: &Extension,
        leadership: &mut Leadership,
        settings: &Settings,
        place: &Place,
        began: Ticks,
    ) -> Result<Swept, Failure> {
        let policies = in_transaction(|| policies::load(extension))?;
        if !policies.bereft.is_empty() {
            in_transaction(|| policies::forget(extension, &policies.bereft))?;
            say::log(format!(
                "pg_reaper: ended {} policies whose tables were dropped",
                policies.bereft.len()
            ));
        }
        let known: Vec<_> = policies.targets.iter().map(|t| (t.policy, t.relation)).collect();
        let before = self.memories.len();
        self.memories.retain(|key, _| known.contains(key));
        if before != self.memories.len() || self.turns.is_empty() {
            in_transaction(|| quarantine::clean(extension))?;
        }
        self.turns.retain(|key, _| known.contains(key));
        self.rates.retain(|policy, _| known.iter().any(|(known, _)| known == policy));
        self.troubles.retain(|key, _| known.contains(key));

        let told = place.told();
        if told.blame_is_new {
            let blamed = |t: &&Target| t.relation.to_u32() == told.blamed_relation;
            for target in policies.targets.iter().filter(blamed) {
                self.punish(target, told.blamed, settings);
                say::warn(format!(
                    "pg_reaper leaves {} (policy {}) alone for a while: a function of it has ended \
                     the worker, {} times in a row",
                    target.name, target.policy, told.blamed
                ));
            }
            place.tell(|slot| slot.blame_is_new = false);
        }

        let mut swept = Swept { clean: true, ..Swept::default() };
        let mut targets: Vec<_> = policies.targets.iter().filter(|t| t.enabled).collect();
        // Of a policy's leaves the one that has waited longest first, so that one leaves something of
        // the rate to the next.
        let order: Vec<_> = targets.iter().map(|target| target.policy).collect();
        targets.sort_by_key(|target| {
            let turn = self.turns.get(&(target.policy, target.relation));
            let place = order.iter().position(|policy| *policy == target.policy);
            (place, turn.map(|turn| turn.next))
        });
        let cycle = Cycle { extension, settings, place, began };
        for target in targets {
            // Reads do not stamp, so a row of slow ones could use up the trust of a renewal.
            if leadership.ageing(ticks(), settings.lease_duration) {
                leadership.reassure(settings, &ticks);
            }
            if !leadership.acts(ticks()) || brake::holds(settings).is_some() {
                swept.clean = false;
                break;
            }
            self.one(&cycle, target, leadership, &mut swept);
        }
        swept.failures_in_a_row =
            self.troubles.values().map(|trouble| trouble.failures).max().unwrap_or(0);
        Ok(swept)
    }

    fn one(
        &mut self,
        cycle: &Cycle,
        target: &Target,
        leadership: &mut Leadership,
        swept: &mut Swept,
    ) {
        let Cycle { extension, settings, place, began } = *cycle;
        let key = (target.policy, target.relation);
        let turn = self.turns.entry(key).or_default();
        if turn.of.as_ref() != Some(target) {
            // What was decided by other settings does not hold any more.
            if turn.of.is_some()
                && let Some(trouble) = self.troubles.get_mut(&key)
            {
                trouble.next_try = Ticks::ZERO;
            }
            if let Some(memory) = self.memories.get_mut(&key) {
                memory.try_again();
            }
            *turn = Turn { of: Some(target.clone()), next: Ticks::ZERO, ..*turn };
        }
        let trouble = self.troubles.get(&key).copied();
        if let Some(trouble) = trouble.filter(|trouble| ticks() < trouble.next_try) {
            swept.clean = false;
            swept.due = earliest(swept.due, trouble.next_try);
            return;
        }
        let backlogs = self.turns.values().filter(|turn| turn.pacing.backlog.is_some()).count();
        let turn = self.turns.entry(key).or_default();
        let rate = self.rates.entry(target.policy).or_default();
        rate.limit(target.rate_limit);
        let next = turn.next.max(rate.free_at);
        if began < next {
            swept.due = earliest(swept.due, next);
            return;
        }
        let memory = self.memories.entry(key).or_insert_with(|| Memory::new(settings.batch_size));
        let until = ticks() + rota::slice(backlogs);
        let mut host =
            Fenced::new(extension, leadership, settings, place, until, &mut turn.pacing, rate);
        title::activity(Some(&format!("pg_reaper: sweep of {}", target.name)));
        let outcome = passes(&mut host, target, memory, settings, began);
        title::activity(None);
        match outcome {
            Ok((end, next)) => {
                turn.next = next;
                let backlog = &mut turn.pacing.backlog;
                *backlog = (end == End::CutShort).then(|| backlog.unwrap_or(began));
                swept.due = earliest(swept.due, next);
                // A pass that was cut short, after a timeout perhaps, has not gone through yet.
                if end == End::CutShort {
                    swept.clean = false;
                } else if let Some(trouble) = self.troubles.remove(&key) {
                    place.tell(|slot| {
                        if slot.blamed_relation == target.relation.to_u32() {
                            slot.blamed = 0;
                        }
                    });
                    say::log(format!(
                        "pg_reaper: sweep of {} goes through again, after {} failures in a row",
                        target.name, trouble.failures
                    ));
                }
            }
            Err(Stop::NotLeading) => swept.clean = false,
            Err(Stop::Failed(failure)) if host.made_way(&failure) => {
                swept.clean = false;
                say::log(format!(
                    "sweep of {} was cancelled to make way for somebody else, and goes on in the \
                     next cycle",
                    target.name
                ));
            }
            // The next sweep ends its policy.
            Err(Stop::Failed(_)) if relation::is_gone(target.relation) => swept.clean = false,
            Err(Stop::Failed(failure)) => {
                swept.clean = false;
                let failures = trouble.map_or(0, |trouble| trouble.failures).saturating_add(1);
                self.punish(target, failures, settings);
                complain(target, &failure, failures, settings, place);
            }
        }
    }
}

fn earliest(one: Option<Ticks>, other: Ticks) -> Option<Ticks> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// Both rules of one table; returns how far it came, and when it wants to be visited again.
fn passes(
    host: &mut Fenced,
    target: &Target,
    memory: &mut Memory,
    settings: &Settings,
    began: Ticks,
) -> Result<(End, Ticks), Stop> {
    let watched = target.watched.as_ref().map_err(|refusal| Failure::from(refusal.clone()))?;
    let mut limits = Limits::of(target, settings, u64::MAX);
    limits.batch_size = host.rate().batch(limits.batch_size);
    let end = pass::expired(host, target, watched, memory, &limits)?;
    let mut stuck_due = None;
    if watched.barrier.is_some_and(|shape| shape.last_progress_at) && limits.stuck_timeout.is_some()
    {
        if ticks() >= memory.stuck_due() {
            pass::stuck(host, target, watched, memory, &limits)?;
        }
        stuck_due = Some(memory.stuck_due());
    }
    let cut_short = end == End::CutShort;
    let own_interval = target.sweep_interval.is_some();
    let due_in = match cut_short || own_interval {
        true => None,
        false => coming::due_in(host, target, watched, memory, settings.interval)?,
    };
    let ended = ticks();
    let rested = ended + host.pacing().rest.settle();
    let visit = Visit {
        began,
        ended,
        cut_short,
        interval: target.sweep_interval.unwrap_or(settings.interval),
        own_interval,
        due_in,
        stuck_due,
        free_at: rested,
    };
    Ok((end, visit.next()))
}

/// Says what failed, how often in a row, and when it is tried again.
fn complain(target: &Target, failure: &Failure, failures: u32, settings: &Settings, place: &Place) {
    let wait = schedule::backoff(failures, settings.interval, schedule::LONGEST_BACKOFF);
    let times = match failures {
        1 => String::new(),
        n => format!(" {n} times in a row"),
    };
    failure.clone().advised().report_as(
        PgLogLevel::WARNING,
        format!(
            "sweep of {} failed{times}, next try in {:.1} s: {}",
            target.name,
            wait.as_secs_f64(),
            failure.message
        ),
    );
    place.tell_error(&format!("{}: {}", target.name, failure.message), &failure.sqlstate());
}
