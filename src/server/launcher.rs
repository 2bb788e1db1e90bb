//! The launcher: keeps a worker in each database that has the extension.
//!
//! It is connected to no database, so that it stands in nobody's way, and reads `pg_database` with
//! a scan of its own. Who gets a worker when is decided in [`crate::decide::fleet`]; what workers
//! and sessions have to say to it lies in the [`roster`]. Should it end, its workers go on, and the
//! next launcher finds them there.

use super::catalog::{self, Database};
use super::clock::ticks;
use super::process::{self, nap, random, reload_if_pending};
use super::roster::{self, Entry, Finding};
use super::starter::{self, Order, Started};
use super::transaction::in_transaction;
use super::{dawdle, say, settings, signals, status, title};
use crate::decide::Ticks;
use crate::decide::databases::Databases;
use crate::decide::fleet::{DatabaseId, Fleet, News, Outcome};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};
use std::collections::HashMap;
use std::time::Duration;

/// How often `pg_database` is read: the longest until a database that was copied from one with the
/// extension is found.
const CENSUS: Duration = Duration::from_secs(5);

/// How long a worker that the launcher before this one had ordered may take to come.
const GRACE: Duration = Duration::from_secs(10);

/// The shortest turn where there are fewer worker slots than databases.
const SHORTEST_TURN: Duration = Duration::from_secs(1);

/// Registers the launcher. Only while the library is preloaded.
pub fn register() {
    // SAFETY: reads a variable of this process.
    if unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    BackgroundWorkerBuilder::new("pg_reaper launcher")
        .set_type("pg_reaper launcher")
        .set_library("pg_reaper")
        .set_function("pg_reaper_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// The entry of the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_reaper_launcher_main(_argument: pg_sys::Datum) {
    signals::install(false);
    process::connect_to_none();
    title::name_wait_event(c"PgReaperLauncherMain");
    // SAFETY: reads a variable of this process.
    roster::launcher_is(unsafe { pg_sys::MyProcPid });
    let mut launcher = Launcher::default();
    let memory = process::cycle_memory();
    loop {
        // SAFETY: nothing that one turn allocated is used by the next.
        unsafe { pg_sys::MemoryContextReset(memory) };
        let next = launcher.turn();
        nap(next.saturating_sub(ticks()));
        if reload_if_pending() {
            launcher.next_census = Ticks::ZERO;
        }
    }
}

#[derive(Default)]
struct Launcher {
    fleet: Fleet,
    /// Workers that this launcher has started and that have not ended.
    started: HashMap<DatabaseId, Started>,
    /// Since when this launcher has missed workers that the one before had ordered.
    missing: HashMap<DatabaseId, Ticks>,
    next_census: Ticks,
    /// The names in `pg_reaper.databases` that no database has, as they were said last.
    unknown: Vec<String>,
    failing: bool,
}

impl Launcher {
    /// One turn: who is there, who has come and gone, who is next. Returns when the next one is
    /// due, if nothing happens before.
    fn turn(&mut self) -> Ticks {
        if ticks() >= self.next_census {
            self.census();
        }
        dawdle::here();
        let (entries, all) = roster::take();
        for entry in &entries {
            self.note(entry);
        }
        if all {
            self.next_census = Ticks::ZERO;
            let known: Vec<_> = self.started.keys().copied().collect();
            self.fleet.announce_all(ticks(), &known);
        }
        // A worker for a database that was dropped meanwhile would only fill the log.
        if self.fleet.next(ticks()).is_some() {
            self.census();
        }
        while let Some(database) = self.fleet.next(ticks()) {
            if !self.start(database) {
                break;
            }
        }
        if self.fleet.relieved() {
            say::log("pg_reaper: every database has its worker again");
        }
        self.fleet.wake(ticks()).min(self.next_census)
    }

    fn census(&mut self) {
        self.next_census = ticks() + CENSUS;
        let allowed = settings::databases();
        match in_transaction(|| Ok(catalog::databases())) {
            Err(failure) => {
                if !self.failing {
                    let message = format!("pg_reaper launcher: {}", failure.message);
                    failure.report_as(PgLogLevel::WARNING, message);
                }
                self.failing = true;
            }
            Ok(found) => {
                self.failing = false;
                self.complain_of_unknown(&allowed, &found);
                let open = found.iter().filter(|d| d.open && allowed.allow(&d.name));
                let present: Vec<_> = open.map(|d| (d.oid.to_u32(), d.name.clone())).collect();
                self.fleet.census(ticks(), &present);
                let exists = |oid| found.iter().any(|d| d.oid.to_u32() == oid);
                status::retain(exists);
                roster::retain(exists);
            }
        }
    }

    /// A name in the list that no database has is a mistake, or a database to come.
    fn complain_of_unknown(&mut self, allowed: &Databases, found: &[Database]) {
        let Databases::Named(names) = allowed else {
            self.unknown.clear();
            return;
        };
        let missing = |name: &&String| !found.iter().any(|d| d.open && d.name == **name);
        let unknown: Vec<_> = names.iter().filter(missing).cloned().collect();
        if !unknown.is_empty() && unknown != self.unknown {
            say::warn_hint(
                PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
                &format!(
                    "pg_reaper.databases names what is no database to serve: {}",
                    unknown.join(", ")
                ),
                "Correct the name, or create the database: its worker starts by itself. Templates \
                 and databases that allow no connections are not served.",
            );
        }
        self.unknown = unknown;
    }

    /// Takes note of what the roster says of one database.
    fn note(&mut self, entry: &Entry) {
        let (now, id) = (ticks(), entry.database);
        self.fleet.stop(id, entry.stopped);
        if entry.announced {
            self.next_census = Ticks::ZERO;
            self.fleet.announce(now, id);
        }
        if entry.finding == Finding::Unsent {
            return roster::forget(id);
        }
        if !self.ended(entry) {
            if entry.pid != 0 && !self.fleet.knows(id) {
                starter::tell_to_leave(entry.pid);
            } else if entry.finding == Finding::Serving {
                let news = self.fleet.serves(now, id);
                self.say(news);
            } else {
                self.fleet.expected(now, id);
            }
            return;
        }
        let asked = self.started.remove(&id).is_some_and(|started| started.asked_to_leave);
        self.missing.remove(&id);
        let outcome = match entry.finding {
            Finding::NoExtension => Outcome::NoExtension,
            _ if asked || entry.stopped || !self.fleet.knows(id) => Outcome::Left,
            Finding::Serving => Outcome::Ended,
            Finding::Ordered | Finding::Unsent => Outcome::Failed,
        };
        let news = self.fleet.gone(now, id, outcome, random());
        self.say(news);
        roster::forget(id);
    }

    /// Whether the worker of an entry has ended.
    fn ended(&mut self, entry: &Entry) -> bool {
        if let Some(started) = self.started.get(&entry.database) {
            return started.has_ended();
        }
        if entry.pid != 0 {
            return !roster::alive(entry.pid);
        }
        // One that the launcher before this one has ordered may still come.
        let since = *self.missing.entry(entry.database).or_insert_with(ticks);
        entry.finding != Finding::Ordered || entry.stopped || ticks() >= since + GRACE
    }

    /// Starts a worker; false when no slot is free for it.
    fn start(&mut self, database: DatabaseId) -> bool {
        let oid = pg_sys::Oid::from(database);
        // Somebody drops it, renames it or makes a copy of it: a worker would only wait for them.
        if !in_transaction(|| Ok(catalog::is_accessible(oid))).unwrap_or(false) {
            self.fleet.gone(ticks(), database, Outcome::Ended, 0.0);
            return true;
        }
        let started = if roster::order(database) {
            starter::start(Order { database: oid, by_launcher: true })
        } else {
            None
        };
        if let Some(started) = started {
            self.started.insert(database, started);
            self.fleet.ordered(ticks(), database);
            return true;
        }
        roster::forget(database);
        let turn = settings::read().interval.max(SHORTEST_TURN);
        let (makes_room, news) = self.fleet.no_slot(ticks(), turn);
        if news {
            say::warn_hint(
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                &match self.fleet.waiting() {
                    1 => "pg_reaper: no worker slot is free, and 1 database waits for one".into(),
                    n => {
                        format!("pg_reaper: no worker slot is free, and {n} databases wait for one")
                    }
                },
                "Databases take turns until there are enough; raise max_worker_processes, or name \
                 fewer in pg_reaper.databases.",
            );
        }
        if let Some(started) = makes_room.and_then(|id| self.started.get_mut(&id)) {
            started.asked_to_leave = true;
        }
        if let Some(entry) = makes_room.and_then(roster::entry).filter(|entry| entry.pid != 0) {
            starter::tell_to_leave(entry.pid);
        }
        false
    }

    fn say(&self, news: Option<News>) {
        match news {
            None => {}
            Some(News::Failing { name, next_try }) => say::warn(format!(
                "pg_reaper: the worker of database {name:?} did not start, next try in {:.1} s, and \
                 later each time",
                next_try.as_secs_f64()
            )),
            Some(News::Recovered { name, failures }) => say::log(format!(
                "pg_reaper: the worker of database {name:?} has started, after {failures} failures \
                 in a row"
            )),
        }
    }
}
