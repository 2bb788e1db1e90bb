//! Tables whose sweeps fail: when they are tried again, and what is said of them.

use super::clock::{server_now, ticks};
use super::failure::Failure;
use super::say;
use super::status::Place;
use super::target::{Key, Target};
use crate::decide::Ticks;
use crate::decide::config::Settings;
use crate::decide::schedule;
use pgrx::PgLogLevel;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A table whose sweep has failed.
#[derive(Clone, Copy)]
struct Trouble {
    failures: u32,
    next_try: Ticks,
}

#[derive(Default)]
pub struct Troubles {
    tables: HashMap<Key, Trouble>,
    /// Watched tables whose functions have ended workers, by their OIDs.
    deadly: HashMap<u32, Deadly>,
    /// This worker has been told of those.
    told: bool,
}

/// A watched table with a function that has ended workers.
#[derive(Clone, Copy)]
struct Deadly {
    /// Where it did that last: the table itself, or a leaf.
    relation: u32,
    /// All leaves are left alone meanwhile: they are likely to have the same function.
    trouble: Trouble,
}

impl Troubles {
    /// Forgets tables that are not watched any more.
    pub fn retain(&mut self, targets: &[Target], known: &HashSet<Key>, place: &Place) {
        self.tables.retain(|key, _| known.contains(key));
        self.deadly.retain(|&root, deadly| {
            let still = targets.iter().any(|target| {
                target.root.to_u32() == root && target.relation.to_u32() == deadly.relation
            });
            if !still {
                place.clear(root);
            }
            still
        });
    }

    /// Failures in a row of the table that has the most.
    pub fn most_in_a_row(&self) -> u32 {
        let deadly = self.deadly.values().map(|deadly| deadly.trouble);
        self.tables
            .values()
            .copied()
            .chain(deadly)
            .map(|trouble| trouble.failures)
            .max()
            .unwrap_or(0)
    }

    /// When a table is tried again, if that is still to come.
    pub fn next_try(&self, target: &Target, now: Ticks) -> Option<Ticks> {
        let own = self.tables.get(&target.key());
        let deadly = self.deadly.get(&target.root.to_u32()).map(|deadly| &deadly.trouble);
        own.into_iter()
            .chain(deadly)
            .map(|trouble| trouble.next_try)
            .filter(|next| now < *next)
            .max()
    }

    /// Its place in a sweep: what may end the worker comes last, and of its leaves the one that did
    /// after those that come behind it. Another worker begins elsewhere, and comes to all of them.
    pub fn turn(&self, target: &Target) -> (bool, bool) {
        match self.deadly.get(&target.root.to_u32()) {
            None => (false, false),
            Some(deadly) => (true, target.relation.to_u32() <= deadly.relation),
        }
    }

    /// Has all tables tried at once.
    pub fn forgive_all(&mut self) {
        self.tables.values_mut().for_each(|trouble| trouble.next_try = Ticks::ZERO);
        self.deadly.values_mut().for_each(|deadly| deadly.trouble.next_try = Ticks::ZERO);
    }

    /// Has one table tried at once.
    pub fn forgive(&mut self, target: &Target) {
        if let Some(trouble) = self.tables.get_mut(&target.key()) {
            trouble.next_try = Ticks::ZERO;
        }
        if let Some(deadly) = self.deadly.get_mut(&target.root.to_u32()) {
            deadly.trouble.next_try = Ticks::ZERO;
        }
    }

    /// Takes note, once, of tables whose functions have ended the workers before.
    pub fn take_blame(&mut self, targets: &[Target], settings: &Settings, place: &Place) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let told = place.told();
        for blame in told.blames.iter().filter(|blame| blame.root != 0) {
            let ago = server_now().saturating_sub(blame.at);
            let ago = Duration::from_micros(u64::try_from(ago).unwrap_or(0));
            let wait = backoff(blame.times, settings).saturating_sub(ago);
            let trouble = Trouble { failures: blame.times, next_try: ticks() + wait };
            self.deadly.insert(blame.root, Deadly { relation: blame.relation, trouble });
            let of = targets.iter().find(|target| target.relation.to_u32() == blame.relation);
            if let Some(target) = of.filter(|_| blame.root == told.blamed) {
                say::warn(format!(
                    "pg_reaper leaves {} (policy {}) alone for a while: a function of it has ended \
                     the worker, {} times in a row",
                    target.name, target.policy, blame.times
                ));
            }
        }
        place.tell(|slot| slot.blamed = 0);
    }

    /// A sweep went through.
    pub fn over(&mut self, target: &Target, place: &Place) {
        let root = target.root.to_u32();
        let deadly = self.deadly.get(&root).copied();
        let deadly = deadly.filter(|deadly| deadly.relation == target.relation.to_u32());
        if deadly.is_some() {
            self.deadly.remove(&root);
            place.clear(root);
        }
        let failed = self.tables.remove(&target.key());
        let failures =
            failed.or(deadly.map(|deadly| deadly.trouble)).map(|trouble| trouble.failures);
        let Some(failures) = failures else { return };
        say::log(format!(
            "pg_reaper: sweep of {} goes through again, after {failures} failures in a row",
            target.called
        ));
    }

    /// A sweep failed: says what, how often in a row, and when it is tried again.
    pub fn failed(
        &mut self,
        target: &Target,
        failure: &Failure,
        settings: &Settings,
        place: &Place,
    ) {
        let before = self.tables.get(&target.key()).map_or(0, |trouble| trouble.failures);
        let failures = before.saturating_add(1);
        let wait = backoff(failures, settings);
        self.tables.insert(target.key(), Trouble { failures, next_try: ticks() + wait });
        let times = match failures {
            1 => String::new(),
            n => format!(" {n} times in a row"),
        };
        failure.clone().advised().report_as(
            PgLogLevel::WARNING,
            format!(
                "sweep of {} failed{times}, next try in {:.1} s: {}",
                target.called,
                wait.as_secs_f64(),
                failure.message
            ),
        );
        let sqlstate = failure.sqlstate();
        place.tell_error(&format!("{}: {}", target.called, failure.public()), &sqlstate);
    }
}

/// How long a table is left alone after so many failures in a row.
fn backoff(failures: u32, settings: &Settings) -> Duration {
    schedule::backoff(failures, settings.interval, schedule::LONGEST_BACKOFF)
}
