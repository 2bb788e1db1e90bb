//! The launcher and the worker as processes: session, memory, and how they wait.

use super::clock::ticks;
use super::{errcode, exit, timeouts, title};
use pgrx::{check_for_interrupts, pg_sys};
use std::ffi::{CStr, c_int};
use std::time::Duration;

// SAFETY: as storage/pmsignal.h declares it, which pgrx does not bind. It raises no error.
unsafe extern "C-unwind" {
    fn PostmasterIsAliveInternal() -> bool;
}

/// The settings of a session that a database or a role may have changed, as the worker needs
/// them. `synchronous_commit = local` waits for the disk and for no standby: what is logged is
/// durable, and a missing standby hangs nothing.
const PINNED: &[(&CStr, &CStr)] = &[
    (c"role", c"none"),
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"synchronous_commit", c"local"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"on"),
    (c"statement_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"DateStyle", c"ISO"),
    (c"quote_all_identifiers", c"off"),
    (c"client_min_messages", c"error"),
    (c"jit", c"off"),
    // A plan is made for one road, and must not be made again for the parameters of each run.
    (c"plan_cache_mode", c"auto"),
    (c"exit_on_error", c"off"),
    // A step of blocks must not become a walk of the table, nor the catalogue be read so.
    (c"enable_tidscan", c"on"),
    (c"enable_indexscan", c"on"),
    (c"enable_seqscan", c"on"),
    (c"enable_bitmapscan", c"on"),
    (c"enable_nestloop", c"on"),
    (c"enable_hashjoin", c"on"),
    // A sweep takes one process, whatever the planner thinks of a table.
    (c"max_parallel_workers_per_gather", c"0"),
];

/// Sets a setting for the rest of this session.
pub fn pin(name: &CStr, value: &CStr) {
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

/// Opens the session with the database.
pub fn connect(database: pg_sys::Oid) {
    // SAFETY: the first thing a worker does with its database; ends the process when it cannot.
    unsafe {
        // On the way out it must be known why there was no way in.
        let watch = errcode::Watch::begin();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        drop(watch);
        exit::prepare();
        make_way_for_others();
        pg_sys::pgstat_report_appname(c"pg_reaper".as_ptr());
    }
    read_what_was_missed();
    pin_all();
    timeouts::register();
}

fn pin_all() {
    for &(name, value) in PINNED {
        pin(name, value);
    }
}

/// Opens a session with no database, in which only what all databases share can be read.
pub fn connect_to_none() {
    // SAFETY: the first thing the launcher does.
    unsafe {
        let none = pg_sys::InvalidOid;
        pg_sys::BackgroundWorkerInitializeConnectionByOid(none, none, 0);
        pg_sys::pgstat_report_appname(c"pg_reaper".as_ptr());
    }
    read_what_was_missed();
    // A serializable, deferrable transaction would wait for everybody else's.
    pin_all();
}

/// Reads the configuration again. PostgreSQL has a new background worker ignore SIGHUP until it comes
/// to the code of its own: a reload that falls between the fork and that moment is lost on it.
fn read_what_was_missed() {
    // SAFETY: a flag that signal handlers set.
    unsafe { pg_sys::ConfigReloadPending = 1 };
    reload_if_pending();
}

/// Has the server treat this process as it treats an autovacuum worker, which must not stand in
/// anybody's way either: whoever has waited for a lock of ours for `deadlock_timeout` cancels what
/// we do, and `DROP DATABASE` and its kin, which need a database without sessions, end us at once.
fn make_way_for_others() {
    // SAFETY: this is where PostgreSQL keeps the flag, twice, and the lock under which it is
    // changed (`PROC_IN_VACUUM` in `vacuum_rel`); ProcArrayLock is the fifth of the main locks.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(4)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        (*pg_sys::MyProc).statusFlags |= pg_sys::PROC_IS_AUTOVACUUM as u8;
        let all = (*pg_sys::ProcGlobal).statusFlags;
        *all.add((*pg_sys::MyProc).pgxactoff as usize) = (*pg_sys::MyProc).statusFlags;
        pg_sys::LWLockRelease(lock);
    }
}

/// Whether the configuration was changed.
pub fn reload_pending() -> bool {
    // SAFETY: a flag that signal handlers set.
    unsafe { pg_sys::ConfigReloadPending != 0 }
}

/// Waits on the latch for `timeout`, or until the configuration changes, or `called` says that
/// there is something to do. A cancellation that finds nothing to cancel is dropped; a termination
/// ends the process in here.
pub fn wait(timeout: Duration, called: impl Fn() -> bool) {
    let until = ticks() + timeout;
    loop {
        let left = until.saturating_sub(ticks());
        if left.is_zero() || reload_pending() || called() {
            return nap(Duration::ZERO);
        }
        nap(left);
    }
}

/// Waits on the latch, for `timeout` at most.
pub fn nap(timeout: Duration) {
    // SAFETY: waits on this process's own latch; the process ends when the postmaster died.
    unsafe {
        pg_sys::QueryCancelPending = 0;
        exit::leave_if_told();
        check_for_interrupts!();
        end_with_postmaster();
        if timeout.is_zero() || reload_pending() {
            return;
        }
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // Up, so that the last wait is not a spin of fractions of a millisecond; and no longer
        // than the server can count.
        let ms = timeout.as_millis().min(1 << 30) as i64 + 1;
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, ms, title::wait_event());
        pg_sys::ResetLatch(pg_sys::MyLatch);
        exit::leave_if_told();
    }
}

/// Ends this process if the postmaster has died: until all are gone that it has started, the server
/// cannot be started again. A process that has no time to wait would not come to know by the latch.
pub fn end_with_postmaster() {
    // SAFETY: looks whether a pipe was closed.
    if !unsafe { PostmasterIsAliveInternal() } {
        exit::end_orphaned();
    }
}

/// A number between 0 and 1 that another server would not draw at the same time.
pub fn random() -> f64 {
    // SAFETY: the generator of this process.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}

/// Reads the configuration again if it was changed; whether it was.
pub fn reload_if_pending() -> bool {
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

/// A memory context for what a cycle allocates outside its transactions, current from now on, so
/// that nothing piles up in a process that lives for months.
pub fn cycle_memory() -> pg_sys::MemoryContext {
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
