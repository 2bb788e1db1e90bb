//! The worker's sweep: every policy that is due, one after the other, each with its failures
//! kept to itself.

use super::blocks;
use super::clock::ticks;
use super::coming;
use super::failure::Failure;
use super::fenced::{Fenced, Paced};
use super::indexed::By;
use super::leadership::Leadership;
use super::memory::Memory;
use super::pass::{self, End, Host, Limits, Stop};
use super::policies;
use super::prepared;
use super::quarantine;
use super::relation::{self, Patience};
use super::target::{Key, Target};
use super::transaction::in_transaction;
use super::troubles::Troubles;
use super::watchlist::Watchlist;
use super::{brake, extension::Extension, process, say, status::Place, title};
use crate::decide::Ticks;
use crate::decide::config::Settings;
use crate::decide::rate::Rate;
use crate::decide::rest::Pacing;
use crate::decide::rota::{self, Visit};
use pgrx::PgLogLevel;
use std::collections::{HashMap, HashSet};

/// What the sweeps of one worker remember.
#[derive(Default)]
pub struct Rounds {
    watchlist: Watchlist,
    memories: HashMap<Key, Memory>,
    turns: HashMap<Key, Turn>,
    /// Of each policy: its leaves share one.
    rates: HashMap<i64, Rate>,
    troubles: Troubles,
    /// Nothing is in quarantine of tables that are not watched any more.
    clean: bool,
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

/// One sweep under way.
struct Sweep<'a> {
    extension: &'a Extension,
    settings: &'a Settings,
    place: &'a Place,
    /// When its cycle began.
    began: Ticks,
    /// How many tables have a backlog, or may have.
    backlogs: usize,
    /// For locks of tables.
    patience: Patience,
}

/// What one sweep did.
#[derive(Default)]
pub struct Swept {
    /// Every policy was swept to its end, and none failed.
    pub clean: bool,
    /// Failures in a row of the policy that has the most.
    pub failures_in_a_row: u32,
    /// The configuration was read again in the middle of it.
    pub reloaded: bool,
    /// When there is something to do before the next interval.
    pub due: Option<Ticks>,
}

impl Swept {
    fn due_by(&mut self, then: Ticks) {
        self.due = Some(self.due.map_or(then, |due| due.min(then)));
    }
}

impl Rounds {
    /// Visits all tables at once, those that failed too: somebody changed the settings.
    pub fn forgive(&mut self) {
        for turn in self.turns.values_mut() {
            turn.next = Ticks::ZERO;
        }
        self.troubles.forgive_all();
        self.memories.values_mut().for_each(Memory::try_again);
    }

    /// The clock has leapt: what was remembered of deadlines may have been read from it.
    pub fn forget(&mut self) {
        self.memories.clear();
        self.turns.clear();
    }

    /// Nobody sweeps here for now. Backlogs that are found afterwards are worked off as gently as new
    /// ones: the time in between says nothing of how long it takes.
    pub fn pause(&mut self) {
        self.turns.values_mut().for_each(|turn| turn.pacing.forget());
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
        let policies = self.watchlist.read(extension, began)?;
        if !policies.bereft.is_empty() {
            in_transaction(|| policies::forget(extension, &policies.bereft))?;
            say::log(format!(
                "pg_reaper: ended {} policies whose tables were dropped",
                policies.bereft.len()
            ));
        }
        self.keep_to(&policies.targets, place);
        if !self.clean {
            in_transaction(|| quarantine::clean(extension))?;
            self.clean = true;
        }
        self.troubles.take_blame(&policies.targets, settings, place);

        let mut targets: Vec<_> = policies.targets.iter().filter(|t| t.enabled).collect();
        // Of a policy's leaves the one that has waited longest first, so that one leaves something of
        // the rate to the next.
        for leaves in targets.chunk_by_mut(|one, next| one.policy == next.policy) {
            let next = |leaf: &Target| self.turns.get(&leaf.key()).map(|turn| turn.next);
            leaves.sort_by_key(|leaf| (next(leaf), self.troubles.turn(leaf).1));
        }
        targets.sort_by_key(|target| self.troubles.turn(target).0);
        if !place.lasts() && self.turns.is_empty() {
            // Nobody knows whose function has ended the last worker, if one did.
            let first = process::random() * targets.len() as f64;
            targets.rotate_left(first as usize);
        }
        let may_have_backlog = |target: &&&Target| {
            self.turns.get(&target.key()).is_none_or(|turn| turn.pacing.has_backlog())
        };
        let backlogs = targets.iter().filter(may_have_backlog).count();
        let patience = Patience::new(settings.lock_limit());
        let sweep = Sweep { extension, settings, place, began, backlogs, patience };
        let mut swept = Swept { clean: true, ..Swept::default() };
        for target in targets {
            // Reads do not stamp, so a row of slow ones could use up the trust of a renewal.
            if leadership.ageing(ticks(), settings.lease_duration) {
                leadership.reassure(settings, &ticks);
            }
            // A reload may say that nothing is to be swept any more. What else it says holds from the next
            // sweep on: were this one cut short, reloads that come often would starve its last tables.
            swept.reloaded |= process::reload_if_pending();
            let off = swept.reloaded && !super::settings::read().enabled;
            if off || !leadership.acts(ticks()) || brake::holds(settings).is_some() {
                swept.clean = false;
                break;
            }
            self.one(target, leadership, &sweep, &mut swept);
        }
        for target in policies.targets.iter().filter(|target| target.reading.has_news()) {
            if let Err(failure) = in_transaction(|| policies::keep_meaning(extension, target)) {
                let what = format!("what policy {} is held to could not be kept", target.policy);
                let message = format!("pg_reaper: {what}: {}", failure.message);
                failure.report_as(PgLogLevel::WARNING, message);
            }
        }
        swept.failures_in_a_row = self.troubles.most_in_a_row();
        Ok(swept)
    }

    /// Remembers nothing of policies that are gone, and no backlog of those that are switched off.
    fn keep_to(&mut self, targets: &[Target], place: &Place) {
        let known: HashSet<_> = targets.iter().map(Target::key).collect();
        let before = self.memories.len();
        self.memories.retain(|key, _| known.contains(key));
        self.clean &= before == self.memories.len();
        self.turns.retain(|key, _| known.contains(key));
        self.troubles.retain(targets, &known, place);
        let known: HashSet<_> = targets.iter().map(|target| target.policy).collect();
        self.rates.retain(|policy, _| known.contains(policy));
        for target in targets.iter().filter(|target| !target.enabled) {
            if let Some(turn) = self.turns.get_mut(&target.key()) {
                turn.pacing.forget();
            }
        }
    }

    fn one(
        &mut self,
        target: &Target,
        leadership: &mut Leadership,
        sweep: &Sweep,
        swept: &mut Swept,
    ) {
        let Sweep { extension, settings, place, began, backlogs, ref patience } = *sweep;
        let key = target.key();
        let turn = self.turns.entry(key).or_default();
        if turn.of.as_ref() != Some(target) {
            // What was decided by other settings does not hold any more.
            if turn.of.is_some() {
                self.troubles.forgive(target);
            }
            if let Some(memory) = self.memories.get_mut(&key) {
                memory.try_again();
            }
            *turn = Turn { of: Some(target.clone()), next: Ticks::ZERO, ..*turn };
        }
        if let Some(next_try) = self.troubles.next_try(target, ticks()) {
            swept.clean = false;
            swept.due_by(next_try);
            return;
        }
        let rate = self.rates.entry(target.policy).or_default();
        rate.limit(target.rate_limit);
        let next = turn.next.max(rate.free_at);
        // It may have fallen due while others had their turn.
        if ticks() < next {
            swept.due_by(next);
            return;
        }
        let memory = self.memories.entry(key).or_insert_with(|| Memory::new(settings.batch_size));
        let now = ticks();
        let until = now + rota::slice(backlogs, now.saturating_sub(began));
        let paced = Paced { pacing: &mut turn.pacing, rate };
        let mut host = Fenced::new(extension, leadership, settings, place, patience, until, paced);
        title::activity(Some(&format!("pg_reaper: sweep of {}", target.name)));
        let outcome = passes(&mut host, target, memory, settings, began);
        title::activity(None);
        match outcome {
            Ok((end, next)) => {
                let cut_short = end == End::CutShort;
                turn.next = next;
                turn.pacing.visited(began, cut_short);
                swept.due_by(next);
                // A pass that was cut short, after a timeout perhaps, has not gone through yet.
                if cut_short {
                    swept.clean = false;
                } else {
                    self.troubles.over(target, place);
                }
            }
            // The next sweep is by the policy as it is now.
            Err(Stop::NotLeading | Stop::Altered) => swept.clean = false,
            Err(Stop::Failed(failure)) if host.made_way(&failure) => {
                swept.clean = false;
                say::log(format!(
                    "sweep of {} was cancelled to make way for somebody else, and goes on in the \
                     next cycle",
                    target.called
                ));
            }
            // It may be for what was altered that this one failed.
            Err(Stop::Failed(_)) if altered(extension, target) => swept.clean = false,
            // The next sweep ends its policy.
            Err(Stop::Failed(_)) if relation::is_gone(target.relation) => swept.clean = false,
            Err(Stop::Failed(failure)) => {
                swept.clean = false;
                turn.pacing.forget();
                if failure.is_of_a_plan() {
                    prepared::plan_anew();
                }
                self.troubles.failed(target, &failure, settings, place);
            }
        }
    }
}

/// Whether the policy of `target` was altered or dropped since it was read.
fn altered(extension: &Extension, target: &Target) -> bool {
    in_transaction(|| policies::still_stands(extension, target)).is_ok_and(|stands| !stands)
}

/// Both rules of one table; returns how far it came, and when it wants to be visited again.
fn passes(
    host: &mut Fenced,
    target: &Target,
    memory: &mut Memory,
    settings: &Settings,
    cycle_began: Ticks,
) -> Result<(End, Ticks), Stop> {
    let began = ticks();
    let watched = target.watched.as_ref().map_err(|refusal| Failure::from(refusal.clone()))?;
    let mut limits = Limits::of(target, settings, u64::MAX);
    limits.batch_size = host.rate().batch(limits.batch_size);
    let end = pass::expired(host, target, watched, memory, &limits)?;
    let mut scan_due = (memory.indexed == Some(By::Nothing)).then_some(memory.scan.due);
    if watched.barrier.is_some_and(|shape| shape.last_progress_at) && limits.stuck_timeout.is_some()
    {
        blocks::stuck(host, target, watched, memory, &limits)?;
        scan_due = Some(scan_due.map_or(memory.stuck.due, |due| due.min(memory.stuck.due)));
    }
    let cut_short = end == End::CutShort;
    let own_interval = target.sweep_interval.is_some();
    // To look for the next deadline is to read all of a table without an index.
    let too_large = memory.scan.has_steps && matches!(memory.indexed, None | Some(By::Nothing));
    let due_in = match cut_short || own_interval || too_large {
        true => None,
        false => coming::due_in(host, target, watched, memory, settings.interval)?,
    };
    let ended = ticks();
    let rested = ended + host.pacing().settle();
    let visit = Visit {
        cycle_began,
        began,
        ended,
        cut_short,
        interval: target.sweep_interval.unwrap_or(settings.interval),
        own_interval,
        due_in,
        scan_due,
        free_at: rested,
    };
    Ok((end, visit.next()))
}
