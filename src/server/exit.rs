//! The way out of the worker.

use super::held::release_held;
use super::settings;
use super::status::{self, Place, State};
use super::timeouts;
use pgrx::{pg_guard, pg_sys, warning};
use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

static SWEEPING: AtomicU32 = AtomicU32::new(0);
/// Set while the lease is being given back: an error in there is fatal.
static RELEASING: AtomicBool = AtomicBool::new(false);
static TERMINATED: AtomicBool = AtomicBool::new(false);
static REACHED_A_CYCLE: AtomicBool = AtomicBool::new(false);

thread_local! {
    static PLACE: RefCell<Option<&'static Place>> = const { RefCell::new(None) };
}

/// Notes whose functions may be running: those of this table, or none.
pub fn sweeping(relation: pg_sys::Oid) {
    SWEEPING.store(relation.to_u32(), Ordering::Relaxed);
}

/// Notes that somebody asked this process to end. Safe in a signal handler.
pub fn terminated() {
    TERMINATED.store(true, Ordering::Relaxed);
}

/// The table whose function brought this process to its end: nobody asked for it, and it came in
/// the middle of a batch. A function can do that by swallowing the cancellation, so that the
/// second timer ends the process, or through a setting that makes an error fatal.
fn culprit() -> Option<u32> {
    let relation = SWEEPING.load(Ordering::Relaxed);
    (relation != 0 && !TERMINATED.load(Ordering::Relaxed)).then_some(relation)
}

/// Has [`last_words`] run when this process ends. Before it connects: the first to be registered is
/// the last to run.
pub fn prepare_early() {
    // SAFETY: as in `prepare`.
    unsafe { pg_sys::before_shmem_exit(Some(last_words), pg_sys::Datum::null()) };
}

/// The start has reached its first cycle.
pub fn reached_a_cycle() {
    if !REACHED_A_CYCLE.swap(true, Ordering::Relaxed) {
        status::start_succeeded();
    }
}

/// Runs after [`at_exit`], even if that was cut short by an error, which is fatal by then.
// SAFETY: only PostgreSQL calls it, at the end of the process; it uses neither argument.
#[pg_guard]
unsafe extern "C-unwind" fn last_words(_code: c_int, _argument: pg_sys::Datum) {
    if RELEASING.load(Ordering::Relaxed) {
        warning!(
            "pg_reaper could not release the lease; another worker can take it after {:?}",
            settings::read().lease_duration
        );
    }
    if !REACHED_A_CYCLE.load(Ordering::Relaxed) {
        status::start_failed();
    }
}

/// Has [`at_exit`] run when this process ends. Once it is connected.
pub fn prepare() {
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
    if let Some(place) = place {
        place.tell(|slot| {
            slot.pid = 0;
            slot.state = State::Down;
            slot.term = 0;
        });
    }
    if let Some(relation) = culprit() {
        let how = match timeouts::overruled() {
            true => "swallowed the cancellation of its batch",
            false => "ended the worker",
        };
        warning!(
            "pg_reaper: a function of the table with OID {relation} {how}; the next worker leaves \
             that table alone for a while"
        );
        if let Some(place) = place {
            place.blame(relation, &format!("a function of the table with OID {relation} {how}"));
        }
    }
    RELEASING.store(true, Ordering::Relaxed);
    release_held("the worker is leaving");
    RELEASING.store(false, Ordering::Relaxed);
}
