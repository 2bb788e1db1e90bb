//! The two strikes that end a statement of the worker.
//!
//! PostgreSQL arms `statement_timeout` only for statements of clients, so the worker arms it
//! itself. A function of the user's may swallow the cancellation and go on; then a second
//! timer, which nothing can catch, ends the process. It is started afresh, and the policy whose
//! function that was is left alone for a while.

use super::clock::server_now;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

// SAFETY: as utils/timeout.h declares them, which pgrx does not bind. They raise no error once the
// timers exist.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: c_int, handler: Option<unsafe extern "C-unwind" fn()>) -> c_int;
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn enable_timeout_every(id: c_int, fin_time: pg_sys::TimestampTz, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

/// The same in every supported version.
const STATEMENT_TIMEOUT: c_int = 3;
/// Any id from USER_TIMEOUT on (12 up to 16, 13 since 17) asks for the next free one.
const ANY_USER_TIMEOUT: c_int = 13;

static SECOND_STRIKE: AtomicI32 = AtomicI32::new(0);
static OVERRULED: AtomicBool = AtomicBool::new(false);

/// Registers the second timer. Once in the life of a worker, after it has connected.
pub fn register() {
    // SAFETY: timeouts are initialised in every process with a database; the handler only sets
    // flags and a latch.
    let id = unsafe { RegisterTimeout(ANY_USER_TIMEOUT, Some(overrule)) };
    SECOND_STRIKE.store(id, Ordering::Relaxed);
}

/// Whether this process is ending because a function swallowed its cancellation.
pub fn overruled() -> bool {
    OVERRULED.load(Ordering::Relaxed)
}

// SAFETY: only called as the handler of a timer.
unsafe extern "C-unwind" fn overrule() {
    // A cancellation that nobody has come to yet was not swallowed: a process that was frozen
    // sees both timers run out at once. The timer repeats.
    // SAFETY: reads a flag that signal handlers set.
    if unsafe { pg_sys::QueryCancelPending } != 0 {
        return;
    }
    OVERRULED.store(true, Ordering::Relaxed);
    // SAFETY: what PostgreSQL's own handler for SIGTERM does, in signal context: two flags that
    // are made for it, and a latch, which is safe to set there.
    unsafe {
        pg_sys::ProcDiePending = 1;
        pg_sys::InterruptPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

/// Runs `work` under both timers: cancelled after `limit`, ended after half as long again, or as
/// soon as the cancellation was seen and swallowed.
pub fn limited<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    let limit_ms = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX).max(1);
    let grace_ms = limit_ms / 2 + 1;
    let second = server_now().saturating_add(1000 * (i64::from(limit_ms) + i64::from(grace_ms)));
    // SAFETY: both timers are registered, and disarmed below; `work` does not unwind, since it
    // contains its errors.
    unsafe {
        enable_timeout_after(STATEMENT_TIMEOUT, limit_ms);
        enable_timeout_every(SECOND_STRIKE.load(Ordering::Relaxed), second, grace_ms);
    }
    let outcome = work();
    disarm();
    outcome
}

/// Runs `work`, which gives back a lease: in bounded time where it runs what somebody else has
/// made. On the way out of the process PostgreSQL takes no interrupt; there it gets half a second
/// until it is cut off, which is a fatal error, and the way out goes on.
pub fn release<T>(anothers: bool, limit: Duration, work: impl FnOnce() -> T) -> T {
    if !anothers {
        return work();
    }
    // SAFETY: reads a flag of this process.
    if !unsafe { pg_sys::proc_exit_inprogress } {
        return limited(limit, work);
    }
    let id = SECOND_STRIKE.load(Ordering::Relaxed);
    // SAFETY: the timer is registered, and disarmed below; interrupts were held by the beginning of
    // the exit alone, which no transaction depends on.
    unsafe {
        disable_timeout(STATEMENT_TIMEOUT, false);
        let held = pg_sys::InterruptHoldoffCount;
        pg_sys::InterruptHoldoffCount = 0;
        enable_timeout_every(id, server_now() + 500_000, 500);
        let outcome = work();
        disable_timeout(id, false);
        pg_sys::InterruptHoldoffCount = held;
        outcome
    }
}

/// Disarms both timers, and forgets a cancellation that came too late to matter.
fn disarm() {
    // SAFETY: disabling a timer that is not armed does nothing.
    unsafe {
        // The second one first. Timers are kept by the wall clock: after a leap, the one that is
        // left runs out at once.
        disable_timeout(SECOND_STRIKE.load(Ordering::Relaxed), false);
        disable_timeout(STATEMENT_TIMEOUT, false);
        pg_sys::QueryCancelPending = 0;
    }
}
