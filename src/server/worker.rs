//! The background worker.
//!
//! It turns one cycle for as long as the server runs: reload, lead, sweep, report, wait. Nothing
//! that goes wrong in a cycle ends it. What does end it (SIGTERM, a crash, a function that
//! swallows its cancellation) makes the postmaster start it afresh a second later, since it never
//! exits with 0; and on every way out but a crash the lease is given back first, in
//! [`exit`].

use super::clock::{iso, server_now, ticks};
use super::extension::Extension;
use super::failure::Failure;
use super::leadership::Leadership;
use super::process::{self, pin, reload_if_pending, wait};
use super::rounds::{Rounds, Swept};
use super::status::{self, Place, State};
use super::transaction::in_transaction;
use super::{exit, settings};
use crate::decide::config::{Change, InForce, Settings};
use crate::decide::{Ticks, schedule};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::{PgLogLevel, log, pg_guard, pg_sys};
use std::ffi::{CString, c_int};
use std::time::Duration;

/// Registers the worker. Only while the library is preloaded.
pub fn register() {
    BackgroundWorkerBuilder::new("pg_reaper worker")
        .set_type("pg_reaper worker")
        .set_library("pg_reaper")
        .set_function("pg_reaper_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// The entry of the worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_reaper_worker_main(_argument: pg_sys::Datum) {
    process::install_signals();
    exit::prepare_early();
    wait_before_connecting(schedule::start_delay(status::failed_starts()));
    process::connect(&settings::databases());
    let mut worker = Worker::new(settings::databases());
    let memory = process::cycle_memory();
    loop {
        // SAFETY: nothing that one cycle allocated is used by the next.
        unsafe { pg_sys::MemoryContextReset(memory) };
        worker.cycle();
        wait(worker.next);
        if reload_if_pending() {
            worker.reloaded();
        }
    }
}

/// A start that failed is not tried again every second: it would fill the log.
fn wait_before_connecting(delay: Duration) {
    let database = settings::databases();
    let until = ticks() + delay;
    while ticks() < until && settings::databases() == database {
        wait(until.saturating_sub(ticks()));
        reload_if_pending();
    }
}

struct Worker {
    database: String,
    in_force: InForce,
    leadership: Leadership,
    rounds: Rounds,
    place: &'static Place,
    /// How long to wait after this cycle.
    next: Duration,
    /// Failures in a row of cycles as such, not of one policy.
    failures: u32,
    /// The last trouble with settings that was complained about.
    complained: Option<Change>,
    state: State,
}

impl Worker {
    fn new(database: String) -> Worker {
        // SAFETY: reads variables of this process, which is connected.
        let (pid, oid) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId) };
        let now = server_now();
        let place: &'static Place =
            Box::leak(Box::new(Place::take(pid, oid.to_u32(), &database, now)));
        exit::vacate(place);
        let me = leader_id(&database, pid, now);
        place.tell(|slot| slot.leader = status::Text::new(&me));
        log!("pg_reaper worker started: {me:?}");
        let mut worker = Worker {
            database,
            in_force: InForce::default(),
            leadership: Leadership::new(me),
            rounds: Rounds::default(),
            place,
            next: Duration::ZERO,
            failures: 0,
            complained: None,
            state: State::Starting,
        };
        worker.take_up();
        worker
    }

    /// Reload is over: take up what it changed.
    fn reloaded(&mut self) {
        if settings::databases() != self.database {
            log!("pg_reaper: the database to serve is {:?} now", settings::databases());
            // SAFETY: the way out releases the lease; the successor connects to the other one.
            unsafe { pg_sys::proc_exit(1) };
        }
        self.take_up();
        self.rounds.forgive();
    }

    fn take_up(&mut self) {
        let change = self.in_force.take_up(settings::read());
        if self.complained.as_ref() != Some(&change) {
            match &change {
                Change::InForce => {}
                Change::PairKept(why) => complain(why, "the last valid pair stays in force"),
                Change::CannotLead(why) => complain(why, "the worker does not lead"),
            }
        }
        self.complained = Some(change);
        if let Some(settings) = self.in_force.settings() {
            let limit = settings.lock_limit().as_millis().max(1).to_string();
            pin(c"lock_timeout", &CString::new(limit).unwrap_or_default());
        }
    }

    /// One cycle: lead, sweep, report. An error of its own is reported, and the next one tries
    /// again.
    fn cycle(&mut self) {
        let began = ticks();
        let interval = match self.in_force.settings() {
            Some(settings) => settings.interval,
            None => settings::read().interval,
        };
        let outcome = match self.in_force.settings().cloned() {
            None => Ok(self.idle(State::Misconfigured, "it is misconfigured")),
            Some(settings) if !settings.enabled => {
                Ok(self.idle(State::Disabled, "pg_reaper.enabled is off"))
            }
            Some(settings) => self.lead_and_sweep(&settings),
        };
        let due = match outcome {
            Ok(due) => {
                self.failures = 0;
                due
            }
            Err(failure) => {
                self.failed(&failure, interval);
                Some(
                    ticks() + schedule::backoff(self.failures, interval, schedule::LONGEST_BACKOFF),
                )
            }
        };
        self.report();
        self.next = if self.failures > 1 {
            // A cycle that fails as such is not worth a turn every interval.
            due.unwrap_or_default().saturating_sub(ticks())
        } else {
            schedule::wait(ticks(), began, interval, due)
        };
    }

    fn idle(&mut self, state: State, why: &str) -> Option<Ticks> {
        self.leadership.release(why);
        self.state = state;
        None
    }

    fn lead_and_sweep(&mut self, settings: &Settings) -> Result<Option<Ticks>, Failure> {
        let Some(extension) = in_transaction(Extension::find)? else {
            self.leadership.extension_gone();
            self.rounds = Rounds::default();
            self.state = State::NoExtension;
            return Ok(None);
        };
        self.leadership.turn(&extension, settings, &ticks)?;
        if !self.leadership.acts(ticks()) {
            self.state = State::Standby;
            return Ok(None);
        }
        self.state = State::Leader;
        self.report();
        let Swept { clean, failures_in_a_row, due } =
            self.rounds.sweep(&extension, &mut self.leadership, settings, self.place)?;
        self.place.tell(|slot| {
            slot.failures_in_a_row = i32::try_from(failures_in_a_row).unwrap_or(i32::MAX);
            if clean {
                slot.last_sweep = server_now();
            }
        });
        if !self.leadership.acts(ticks()) {
            self.state = State::Standby;
        }
        Ok(due)
    }

    /// Tells what this worker is now.
    fn report(&self) {
        exit::reached_a_cycle();
        let (state, term) = (self.state, self.leadership.term().unwrap_or(0));
        self.place.tell(|slot| {
            slot.state = state;
            slot.term = term;
            slot.last_cycle = server_now();
        });
    }

    fn failed(&mut self, failure: &Failure, interval: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.state = if self.leadership.acts(ticks()) { State::Leader } else { State::Standby };
        let failures = self.failures;
        let wait = schedule::backoff(failures, interval, schedule::LONGEST_BACKOFF);
        failure.report_as(
            PgLogLevel::WARNING,
            format!(
                "pg_reaper: a cycle failed, {failures} times in a row, next try in {:.1} s: {}",
                wait.as_secs_f64(),
                failure.message
            ),
        );
        self.place.tell_error(&failure.message, &failure.sqlstate());
        self.place.tell(|slot| {
            slot.failures_in_a_row = i32::try_from(failures).unwrap_or(i32::MAX);
        });
    }
}

fn complain(why: &crate::decide::config::Misconfigured, what: &str) {
    use pgrx::pg_sys::panic::ErrorReport;
    let code = pgrx::PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    ErrorReport::new(code, format!("{why}; {what}"), "pg_reaper")
        .set_hint(why.hint())
        .report(PgLogLevel::WARNING);
}

/// An id that no other start of a worker has, and that a person can read: where, which database,
/// which process, since when.
fn leader_id(database: &str, pid: c_int, started: i64) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    // SAFETY: reads a variable of this process.
    let port = unsafe { pg_sys::PostPortNumber };
    format!("{host}:{port}/{database}/{pid}@{}", iso(started))
}
