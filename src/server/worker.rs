//! The background worker: one for each database that has the extension.
//!
//! It turns one cycle for as long as it serves: reload, lead, sweep, report, wait. Nothing that
//! goes wrong in a cycle ends it. What does end it (SIGTERM, a function that swallows its
//! cancellation, `DROP DATABASE`) brings another one a second later, by the launcher or, without
//! the preload, by the postmaster. It leaves for good when it is told to, and where it finds no
//! extension. On every way out but a crash the lease is given back first, in [`exit`].

use super::clock::{server_now, ticks};
use super::extension::Extension;
use super::failure::Failure;
use super::leadership::Leadership;
use super::process::{self, pin, reload_if_pending, wait};
use super::roster::{self, Finding};
use super::rounds::{Rounds, Swept};
use super::starter::Order;
use super::status::{self, Place, State};
use super::transaction::in_transaction;
use super::{board, brake, dawdle, exit, identity, say, settings, signals, title};
use crate::decide::brake::Hold;
use crate::decide::config::{Change, InForce, Settings};
use crate::decide::version::Skew;
use crate::decide::{Ticks, schedule};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};
use std::ffi::CString;
use std::time::Duration;

/// The soonest that a lease which was only locked is tried for again. `CREATE EXTENSION` lets go of
/// its locks a moment after it has told of its commit.
const SOON: Duration = Duration::from_millis(20);

/// The entry of the worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_reaper_worker_main(argument: pg_sys::Datum) {
    let order = Order::from(argument);
    signals::install(true);
    exit::prepare_early(order.by_launcher.then_some(order.database));
    // SAFETY: reads a variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    if order.by_launcher && !roster::enter(order.database.to_u32(), pid) {
        exit::end();
    }
    process::connect(order.database);
    board::attach();
    title::name_wait_event(c"PgReaperWorkerMain");
    // A failure here is one of the first cycle too, and is reported there.
    if matches!(in_transaction(Extension::find), Ok(None)) {
        exit::leave_without_extension(order.database);
    }
    roster::found(order.database.to_u32(), Finding::Serving);
    let mut worker = Worker::new();
    let memory = process::cycle_memory();
    loop {
        // SAFETY: nothing that one cycle allocated is used by the next.
        unsafe { pg_sys::MemoryContextReset(memory) };
        worker.cycle();
        wait(worker.next, || worker.reload || brake::resumes() != worker.resumes);
        if reload_if_pending() | std::mem::take(&mut worker.reload) {
            worker.reloaded();
        }
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
    /// When the lease is seen to again. Cycles before that are about deadlines.
    lead_at: Ticks,
    /// Failures in a row of cycles as such, not of one policy.
    failures: u32,
    /// What the last cycle has found to serve.
    serves: Option<Extension>,
    /// The last trouble with settings that was complained about.
    complained: Option<Change>,
    /// What was said of the versions last.
    skewed: Skew,
    state: State,
    /// Something keeps a leader from sweeping.
    held: bool,
    /// How often somebody had resumed when the cycle began.
    resumes: u32,
    /// The configuration was read again in the middle of a sweep.
    reload: bool,
    /// What `ps` shows: the state, and whether passes are held.
    shown: Option<(State, bool)>,
}

impl Worker {
    fn new() -> Worker {
        // SAFETY: reads variables of this process, which is connected.
        let (pid, oid) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId) };
        let database = identity::database();
        let now = server_now();
        let me = identity::leader(&database, pid, now);
        dawdle::here();
        let place: &'static Place =
            Box::leak(Box::new(Place::take(pid, oid.to_u32(), &database, &me, now)));
        exit::vacate(place);
        say::log(format!("pg_reaper worker started: {me:?}"));
        let mut worker = Worker {
            database,
            in_force: InForce::default(),
            leadership: Leadership::new(me),
            rounds: Rounds::default(),
            place,
            next: Duration::ZERO,
            lead_at: Ticks::ZERO,
            failures: 0,
            serves: None,
            complained: None,
            skewed: Skew::None,
            state: State::Starting,
            held: false,
            resumes: 0,
            reload: false,
            shown: None,
        };
        worker.take_up();
        worker
    }

    /// Reload is over: take up what it changed.
    fn reloaded(&mut self) {
        self.take_up();
        self.rounds.forgive();
        self.lead_at = Ticks::ZERO;
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
        dawdle::here();
        let interval = match self.in_force.settings() {
            Some(settings) => settings.interval,
            None => settings::read().interval,
        };
        self.held = false;
        if std::mem::replace(&mut self.resumes, brake::resumes()) != self.resumes {
            // Nobody waits for a turn that was given by a clock which is not trusted any more.
            self.rounds.forget();
        }
        // Leading or not, the clock is watched.
        brake::holds(&settings::read());
        let outcome = match self.in_force.settings().cloned() {
            None => Ok(self.idle(State::Misconfigured, "it is misconfigured")),
            Some(settings) if !settings.enabled => {
                Ok(self.idle(State::Disabled, "pg_reaper.enabled is off"))
            }
            Some(settings) => self.lead_and_sweep(&settings, began),
        };
        let due = match outcome {
            Ok(due) => {
                self.failures = 0;
                due
            }
            // It went, or came back as another, in the middle of the cycle.
            Err(_) if self.serves_another() => Some(ticks()),
            Err(failure) => {
                self.failed(&failure, interval);
                Some(
                    ticks() + schedule::backoff(self.failures, interval, schedule::LONGEST_BACKOFF),
                )
            }
        };
        if self.state != State::Leader || self.held {
            self.rounds.pause();
        }
        self.report();
        self.next = if self.failures > 1 {
            // A cycle that fails as such is not worth a turn every interval.
            due.unwrap_or_default().saturating_sub(ticks())
        } else {
            schedule::wait(ticks(), began, interval, due)
        };
    }

    /// Whether the extension is not the one that the cycle began with.
    fn serves_another(&self) -> bool {
        in_transaction(Extension::find).is_ok_and(|now| now != self.serves)
    }

    fn idle(&mut self, state: State, why: &str) -> Option<Ticks> {
        self.leadership.release(why);
        self.state = state;
        None
    }

    fn lead_and_sweep(
        &mut self,
        settings: &Settings,
        began: Ticks,
    ) -> Result<Option<Ticks>, Failure> {
        let Some(extension) = in_transaction(Extension::find)? else {
            self.leadership.extension_gone();
            // SAFETY: reads a variable of this process.
            exit::leave_without_extension(unsafe { pg_sys::MyDatabaseId });
        };
        self.serves = Some(extension.clone());
        if self.outdated(&extension) {
            return Ok(self.idle(State::Outdated, "the extension is newer than the library"));
        }
        let lease = settings.lease_duration;
        let sure = self.leadership.acts(began) && !self.leadership.ageing(began, lease);
        if began >= self.lead_at || !sure {
            self.leadership.turn(&extension, settings, &ticks)?;
            self.lead_at = began + settings.interval;
        }
        if !self.leadership.acts(ticks()) {
            self.state = State::Standby;
            let soon = ticks() + (settings.interval / 10).max(SOON);
            return Ok(self.leadership.held_up().then_some(soon));
        }
        self.state = State::Leader;
        if let Some(hold) = brake::attend(&extension, settings)? {
            return Ok(self.hold(hold));
        }
        self.report();
        let Swept { clean, failures_in_a_row, reloaded, due } =
            self.rounds.sweep(&extension, &mut self.leadership, settings, self.place, began)?;
        self.reload |= reloaded;
        self.place.tell(|slot| {
            slot.failures_in_a_row = i32::try_from(failures_in_a_row).unwrap_or(i32::MAX);
            if clean {
                // It shows that the worker goes on, too.
                slot.last_sweep = server_now();
                slot.last_cycle = slot.last_sweep;
            }
        });
        if !self.leadership.acts(ticks()) {
            self.state = State::Standby;
        }
        Ok(due)
    }

    /// Passes are held; returns when that ends by itself.
    fn hold(&mut self, hold: Hold) -> Option<Ticks> {
        self.held = true;
        match hold {
            Hold::Grace(left) => Some(ticks() + left),
            Hold::Leap(_) => {
                self.rounds.forget();
                None
            }
        }
    }

    /// Whether the SQL of the extension is newer than the library: its tables may mean more than
    /// we know of, so nothing is swept. Says so once, and what to do.
    fn outdated(&mut self, extension: &Extension) -> bool {
        let found = extension.skew();
        if found != self.skewed {
            extension.tell(found, &self.database);
        }
        self.skewed = found;
        found == Skew::SqlNewer
    }

    /// Tells what this worker is now.
    fn report(&mut self) {
        let show = (self.state, self.held);
        if self.shown.replace(show) != Some(show) {
            let held = if self.held { ", held" } else { "" };
            title::show(&format!("{} {}{held}", self.database, self.state.name()));
        }
        let (state, term) = (self.state, self.leadership.term().unwrap_or(0));
        dawdle::here();
        // In a shared table it is a new one with each acquisition.
        let leader = status::Text::new(self.leadership.me());
        self.place.tell(|slot| {
            slot.state = state;
            slot.term = term;
            slot.leader = leader;
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
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    say::say(PgLogLevel::WARNING, code, &format!("{why}; {what}"), None, Some(&why.hint()));
}
