//! Tables whose sweeps fail: when they are tried again, and what is said of them.

use super::clock::ticks;
use super::failure::Failure;
use super::say;
use super::status::Place;
use super::target::{Key, Target};
use crate::decide::Ticks;
use crate::decide::config::Settings;
use crate::decide::schedule;
use pgrx::PgLogLevel;
use std::collections::HashMap;

/// A table whose sweep has failed.
#[derive(Clone, Copy)]
struct Trouble {
    failures: u32,
    next_try: Ticks,
}

#[derive(Default)]
pub struct Troubles(HashMap<Key, Trouble>);

impl Troubles {
    pub fn retain(&mut self, known: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| known(key));
    }

    /// Failures in a row of the table that has the most.
    pub fn most_in_a_row(&self) -> u32 {
        self.0.values().map(|trouble| trouble.failures).max().unwrap_or(0)
    }

    /// When a table is tried again, if that is still to come.
    pub fn next_try(&self, key: Key, now: Ticks) -> Option<Ticks> {
        self.0.get(&key).map(|trouble| trouble.next_try).filter(|next_try| now < *next_try)
    }

    /// Has all tables tried at once.
    pub fn forgive_all(&mut self) {
        self.0.values_mut().for_each(|trouble| trouble.next_try = Ticks::ZERO);
    }

    /// Has one table tried at once.
    pub fn forgive(&mut self, key: Key) {
        if let Some(trouble) = self.0.get_mut(&key) {
            trouble.next_try = Ticks::ZERO;
        }
    }

    /// Takes note of a table whose function has ended the last worker.
    pub fn take_blame(&mut self, targets: &[Target], settings: &Settings, place: &Place) {
        let told = place.told();
        if !told.blame_is_new {
            return;
        }
        let blamed = |t: &&Target| t.relation.to_u32() == told.blamed_relation;
        for target in targets.iter().filter(blamed) {
            self.leave_alone(target, told.blamed, settings);
            say::warn(format!(
                "pg_reaper leaves {} (policy {}) alone for a while: a function of it has ended \
                 the worker, {} times in a row",
                target.name, target.policy, told.blamed
            ));
        }
        place.tell(|slot| slot.blame_is_new = false);
    }

    fn leave_alone(&mut self, target: &Target, failures: u32, settings: &Settings) {
        let wait = schedule::backoff(failures, settings.interval, schedule::LONGEST_BACKOFF);
        self.0.insert(target.key(), Trouble { failures, next_try: ticks() + wait });
    }

    /// A sweep went through.
    pub fn over(&mut self, target: &Target, place: &Place) {
        let Some(trouble) = self.0.remove(&target.key()) else { return };
        place.tell(|slot| {
            if slot.blamed_relation == target.relation.to_u32() {
                slot.blamed = 0;
            }
        });
        say::log(format!(
            "pg_reaper: sweep of {} goes through again, after {} failures in a row",
            target.called, trouble.failures
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
        let before = self.0.get(&target.key()).map_or(0, |trouble| trouble.failures);
        let failures = before.saturating_add(1);
        self.leave_alone(target, failures, settings);
        let wait = schedule::backoff(failures, settings.interval, schedule::LONGEST_BACKOFF);
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
        place.tell_error(&format!("{}: {}", target.called, failure.message), &failure.sqlstate());
    }
}
