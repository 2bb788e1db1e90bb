//! The background worker.
//!
//! It turns one cycle for as long as the server runs: reload, lead, sweep, report, wait. Nothing
//! that goes wrong in a cycle ends it. What does end it (SIGTERM, a crash, a function that
//! swallows its cancellation) makes the postmaster start it afresh a second later, since it never
//! exits with 0; and on every way out but a crash the lease is given back first, in
//! [`at_exit`].

use super::clock::{iso, server_now, ticks};
use super::extension::Extension;
use super::failure::Failure;
use super::leadership::{Leadership, release_held};
use super::rounds::{Rounds, Swept};
use super::status::{self, Place, State};
use super::transaction::in_transaction;
use super::{settings, timeouts};
use crate::decide::config::{Change, InForce, Settings};
use crate::decide::{Ticks, schedule};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::{PgLogLevel, check_for_interrupts, log, pg_guard, pg_sys, warning};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};
use std::sync::atomic::{AtomicI64, Ordering};
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

static SWEEPING: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static PLACE: RefCell<Option<&'static Place>> = const { RefCell::new(None) };
}

/// Notes which policy's functions may be running; 0: none.
pub fn sweeping(policy: i64) {
    SWEEPING.store(policy, Ordering::Relaxed);
}

/// Whether the configuration was changed.
pub fn reload_pending() -> bool {
    // SAFETY: a flag that signal handlers set.
    unsafe { pg_sys::ConfigReloadPending != 0 }
}

/// Notes an error for `pg_reaper_status()`.
pub fn tell_error(place: &Place, message: &str, sqlstate: &str) {
    let text = format!("{message} (SQLSTATE {sqlstate})");
    place.tell(|slot| {
        slot.errors += 1;
        slot.last_error = status::Text::new(&text);
        slot.last_error_at = server_now();
    });
}

// The handlers of PostgreSQL itself, by address: pgrx binds them as functions to call.
unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// SIGTERM is handled as in an ordinary backend: the next check for interrupts, also inside a
/// statement or a lock wait, ends the process, and no function can catch that. SIGINT stays as
/// PostgreSQL set it: it cancels the statement.
fn install_signals() {
    // SAFETY: signals are still blocked, and these handlers only set flags and a latch.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(pg_sys::SIGTERM as c_int, Some(die));
        pqsignal(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// The settings of a session that a database or a role may have changed, as the worker needs
/// them. `synchronous_commit = local` waits for the disk and for no standby: what is logged is
/// durable, and a missing standby hangs nothing.
const PINNED: [(&CStr, &CStr); 12] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"synchronous_commit", c"local"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"on"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"DateStyle", c"ISO"),
    (c"client_min_messages", c"error"),
    (c"jit", c"off"),
];

fn pin(name: &CStr, value: &CStr) {
    // SAFETY: NUL-terminated strings; a value that is refused raises an error.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// Waits on the latch for `timeout`, or until the configuration changes. A cancellation that
/// finds nothing to cancel is dropped; a termination ends the process in here.
fn wait(timeout: Duration) {
    let until = ticks() + timeout;
    loop {
        let left = until.saturating_sub(ticks());
        // SAFETY: waits on this process's own latch; the process ends when the postmaster died.
        unsafe {
            pg_sys::QueryCancelPending = 0;
            check_for_interrupts!();
            if reload_pending() || left.is_zero() {
                return;
            }
            let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
            // Rounded up, or the last wait would spin for the rest of a millisecond.
            let ms = left.as_millis() as i64 + 1;
            pg_sys::WaitLatch(
                pg_sys::MyLatch,
                events as c_int,
                ms,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
}

fn reload_if_pending() -> bool {
    let pending = reload_pending();
    if pending {
        // SAFETY: outside any transaction, as in PostgreSQL's own workers.
        unsafe {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    pending
}

/// The entry of the worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_reaper_worker_main(_argument: pg_sys::Datum) {
    install_signals();
    let failed = status::starting();
    let database = settings::databases();
    wait_before_connecting(schedule::start_delay(failed), &database);
    connect(&settings::databases());
    let mut worker = Worker::new(settings::databases());
    let memory = cycle_memory();
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

/// A memory context for what a cycle allocates outside its transactions, current from now on, so
/// that nothing piles up in a process that lives for months.
fn cycle_memory() -> pg_sys::MemoryContext {
    // SAFETY: a child of the top context, which lives as long as the process.
    unsafe {
        let memory = pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"pg_reaper cycle".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        pg_sys::MemoryContextSwitchTo(memory);
        memory
    }
}

/// A start that failed is not tried again every second: it would fill the log.
fn wait_before_connecting(delay: Duration, database: &str) {
    let until = ticks() + delay;
    while ticks() < until && settings::databases() == database {
        wait(until.saturating_sub(ticks()));
        reload_if_pending();
    }
}

fn connect(database: &str) {
    let name = CString::new(database).unwrap_or_default();
    // SAFETY: the first thing a worker does with its database; ends the process when it cannot.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(name.as_ptr(), std::ptr::null(), 0);
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::null());
        pg_sys::pgstat_report_appname(c"pg_reaper".as_ptr());
    }
    for (name, value) in PINNED {
        pin(name, value);
    }
    timeouts::register();
}

/// The way out, whatever led to it but a crash. PostgreSQL runs it before it aborts the
/// transaction under way, and lets it run one of its own, as it does to drop temporary tables.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: c_int, _argument: pg_sys::Datum) {
    // SAFETY: nothing of the frames below is used any more; the process is ending.
    unsafe { pg_sys::AbortOutOfAnyTransaction() };
    let policy = SWEEPING.load(Ordering::Relaxed);
    if timeouts::overruled() {
        warning!(
            "pg_reaper: a function of policy {policy} swallowed the cancellation of its batch; \
             the worker ends, and its successor leaves that policy alone for a while"
        );
    }
    if let Some(place) = PLACE.with_borrow(|place| *place) {
        place.tell(|slot| {
            slot.pid = 0;
            slot.state = State::Down;
            slot.term = 0;
            if timeouts::overruled() {
                slot.overruled_policy = policy;
                slot.overruled = slot.overruled.saturating_add(1);
                slot.errors += 1;
                slot.last_error = status::Text::new(&format!(
                    "policy {policy}: a function swallowed the cancellation of its batch"
                ));
                slot.last_error_at = server_now();
            }
        });
    }
    release_held("the worker is leaving");
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
        PLACE.set(Some(place));
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
            log!(
                "pg_reaper: the database to serve is {:?} now",
                settings::databases()
            );
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
        let Swept {
            reaped: _,
            clean,
            failures_in_a_row,
            due,
        } = self
            .rounds
            .sweep(&extension, &mut self.leadership, settings, self.place)?;
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
        status::started();
        let (state, term) = (self.state, self.leadership.term().unwrap_or(0));
        self.place.tell(|slot| {
            slot.state = state;
            slot.term = term;
            slot.last_cycle = server_now();
        });
    }

    fn failed(&mut self, failure: &Failure, interval: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Standby;
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
        tell_error(self.place, &failure.message, &failure.sqlstate());
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
    let host = if host.trim().is_empty() {
        "localhost"
    } else {
        host.trim()
    };
    // SAFETY: reads a variable of this process.
    let port = unsafe { pg_sys::PostPortNumber };
    format!("{host}:{port}/{database}/{pid}@{}", iso(started))
}
