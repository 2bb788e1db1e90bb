//! The way out of the worker.

use super::clock::server_now;
use super::held::release_held;
use super::status::{self, Place, State};
use super::timeouts;
use pgrx::{pg_guard, pg_sys, warning};
use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

static SWEEPING: AtomicI64 = AtomicI64::new(0);
static REACHED_A_CYCLE: AtomicBool = AtomicBool::new(false);

thread_local! {
    static PLACE: RefCell<Option<&'static Place>> = const { RefCell::new(None) };
}

/// Notes which policy's functions may be running; 0: none.
pub fn sweeping(policy: i64) {
    SWEEPING.store(policy, Ordering::Relaxed);
}

/// Has a start that fails counted. Before it connects.
pub fn expect_a_cycle() {
    // SAFETY: as in `prepare`.
    unsafe { pg_sys::before_shmem_exit(Some(count_failed_start), pg_sys::Datum::null()) };
}

/// The start has reached its first cycle.
pub fn reached_a_cycle() {
    if !REACHED_A_CYCLE.swap(true, Ordering::Relaxed) {
        status::start_succeeded();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn count_failed_start(_code: c_int, _argument: pg_sys::Datum) {
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
