//! The way out of the worker.

use super::held::release_held;
use super::status::Place;
use super::{dawdle, errcode, roster, say, settings, tally, timeouts};
use pgrx::{pg_guard, pg_sys};
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Set while the lease is being given back: an error in there is fatal.
static RELEASING: AtomicBool = AtomicBool::new(false);
static TERMINATED: AtomicBool = AtomicBool::new(false);
/// Told to leave for good: by `pg_reaper_stop()`, or by the launcher.
static LEAVING: AtomicBool = AtomicBool::new(false);
static CONNECTED: AtomicBool = AtomicBool::new(false);
/// The worker leaves because it has nothing to serve any more.
static EXTENSION_GONE: AtomicBool = AtomicBool::new(false);
/// The database that the launcher sent this process to; 0: it was not sent by the launcher.
static SENT_TO: AtomicU32 = AtomicU32::new(0);

/// Whose functions may be running.
#[derive(Clone, Copy)]
pub enum Functions {
    /// Those of a table that is watched, or whose root is.
    OfTable { table: pg_sys::Oid, root: pg_sys::Oid },
    /// Those of a lease table that is another's.
    OfLease(pg_sys::Oid),
}

thread_local! {
    static RUNNING: Cell<Option<Functions>> = const { Cell::new(None) };
    static PLACE: RefCell<Option<&'static Place>> = const { RefCell::new(None) };
}

/// Notes whose functions may be running now.
pub fn running(functions: Option<Functions>) {
    RUNNING.set(functions);
}

/// Notes that somebody asked this process to end. Safe in a signal handler.
pub fn terminated() {
    TERMINATED.store(true, Ordering::Relaxed);
}

/// Notes that this process is to leave for good. Safe in a signal handler.
pub fn told_to_leave() {
    LEAVING.store(true, Ordering::Relaxed);
}

/// Leaves, between two transactions, if somebody said so.
pub fn leave_if_told() {
    if LEAVING.load(Ordering::Relaxed) {
        say::log("pg_reaper worker leaves: it was told to");
        end()
    }
}

/// Ends this worker: there is nothing here to serve.
pub fn leave_without_extension(database: pg_sys::Oid) -> ! {
    EXTENSION_GONE.store(true, Ordering::Relaxed);
    roster::found(database.to_u32(), roster::Finding::NoExtension);
    end()
}

/// Ends this process between two transactions. What is held is given back by the callbacks below.
#[allow(unreachable_code, reason = "in some versions the binding says that it does not return")]
pub fn end() -> ! {
    // SAFETY: runs the callbacks, and ends the process.
    unsafe { pg_sys::proc_exit(0) };
    unreachable!("proc_exit does not return")
}

/// Ends this process because there is no postmaster any more, as PostgreSQL's own do.
#[allow(unreachable_code, reason = "in some versions the binding says that it does not return")]
pub fn end_orphaned() -> ! {
    // SAFETY: as in `end`.
    unsafe { pg_sys::proc_exit(1) };
    unreachable!("proc_exit does not return")
}

/// Whose function brought this process to its end: nobody asked for it, and it came while one was
/// running. A function can do that by swallowing the cancellation, so that the second timer ends
/// the process, or through a setting that makes an error fatal.
fn culprit() -> Option<Functions> {
    RUNNING.get().filter(|_| !TERMINATED.load(Ordering::Relaxed))
}

/// Has [`last_words`] run when this process ends. Before it connects: the first to be registered is
/// the last to run. `sent_to` is the database that the launcher sent it to, if it was the launcher.
pub fn prepare_early(sent_to: Option<pg_sys::Oid>) {
    SENT_TO.store(sent_to.map_or(0, pg_sys::Oid::to_u32), Ordering::Relaxed);
    // SAFETY: as in `prepare`.
    unsafe { pg_sys::before_shmem_exit(Some(last_words), pg_sys::Datum::null()) };
}

/// Runs after [`at_exit`], even if that was cut short by an error, which is fatal by then.
// SAFETY: only PostgreSQL calls it, at the end of the process; it uses neither argument.
#[pg_guard]
unsafe extern "C-unwind" fn last_words(code: c_int, _argument: pg_sys::Datum) {
    if RELEASING.load(Ordering::Relaxed) {
        say::warn(format!(
            "pg_reaper could not release the lease; another worker can take it after {:?}",
            settings::read().lease_duration
        ));
    }
    let sent_to = SENT_TO.load(Ordering::Relaxed);
    if sent_to != 0 {
        // SAFETY: reads a variable of this process.
        roster::leave(sent_to, unsafe { pg_sys::MyProcPid });
    } else if code != 0
        && (LEAVING.load(Ordering::Relaxed)
            || EXTENSION_GONE.load(Ordering::Relaxed)
            || !CONNECTED.load(Ordering::Relaxed) && errcode::says_no_database())
    {
        // Only an exit code of 0 keeps the postmaster from starting it afresh.
        // SAFETY: the exit under way goes on from here with another code, as it does when a
        // callback fails.
        unsafe { pg_sys::proc_exit(0) };
    }
}

/// Has [`at_exit`] run when this process ends. Once it is connected.
pub fn prepare() {
    CONNECTED.store(true, Ordering::Relaxed);
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::null()) };
}

/// Has `place` say so when this process ends.
pub fn vacate(place: &'static Place) {
    PLACE.set(Some(place));
}

/// The way out, whatever led to it but a crash. PostgreSQL runs it before it aborts the
/// transaction under way, and lets it run one of its own, as it does to drop temporary tables.
// SAFETY: only PostgreSQL calls it, at the end of the process; it uses neither argument.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: c_int, _argument: pg_sys::Datum) {
    // SAFETY: nothing of the frames below is used any more; the process is ending.
    unsafe { pg_sys::AbortOutOfAnyTransaction() };
    let place = PLACE.with_borrow(|place| *place);
    dawdle::here();
    if let Some(place) = place {
        tally::settle(place);
        place.leave(EXTENSION_GONE.load(Ordering::Relaxed));
    }
    if let Some(functions) = culprit() {
        accuse(functions, place);
    }
    RELEASING.store(true, Ordering::Relaxed);
    release_held("the worker is leaving");
    RELEASING.store(false, Ordering::Relaxed);
}

/// Says whose function brought this process to its end.
fn accuse(functions: Functions, place: Option<&Place>) {
    let how = match timeouts::overruled() {
        true => "swallowed the cancellation of its statement",
        false => "ended the worker",
    };
    match functions {
        Functions::OfTable { table, root } => {
            let what = format!("a function of the table with OID {} {how}", table.to_u32());
            say::warn(format!(
                "pg_reaper: {what}; the next worker leaves that table alone for a while"
            ));
            if let Some(place) = place {
                place.blame(root.to_u32(), table.to_u32(), &what);
            }
        }
        Functions::OfLease(table) => {
            let what = format!("a function of the lease table with OID {} {how}", table.to_u32());
            say::warn(format!("pg_reaper: {what}; nobody can lead while it does"));
            if let Some(place) = place {
                place.tell_error(&what, "57P01");
            }
        }
    }
}
