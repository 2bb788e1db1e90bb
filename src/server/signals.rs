//! The signals that the launcher and the worker go by.

use super::exit;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

// SAFETY: the handlers of PostgreSQL itself, as its headers declare them. By address, since pgrx
// binds them as functions to call.
unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
    fn StatementCancelHandler(signal: c_int);
}

// SAFETY: only called as a signal handler, after it was installed below.
unsafe extern "C-unwind" fn terminate(signal: c_int) {
    exit::terminated();
    // SAFETY: called as what it is, a signal handler.
    unsafe { die(signal) };
}

// SAFETY: only called as a signal handler, after it was installed below.
unsafe extern "C-unwind" fn leave(signal: c_int) {
    exit::told_to_leave();
    // SAFETY: called as what it is, a signal handler.
    unsafe { terminate(signal) };
}

/// How often somebody, or a timer, has asked for the statement to be cancelled.
static CANCELS: AtomicU32 = AtomicU32::new(0);

/// A count that moves with each request for a cancellation. A function can raise the error of one
/// that nobody has asked for.
pub fn cancels() -> u32 {
    CANCELS.load(Ordering::Relaxed)
}

// SAFETY: only called as a signal handler, after it was installed below.
unsafe extern "C-unwind" fn cancel(signal: c_int) {
    CANCELS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: called as what it is, a signal handler.
    unsafe { StatementCancelHandler(signal) };
}

/// What tells a worker to leave for good. SIGTERM would have it started afresh.
pub const LEAVE: c_int = pg_sys::SIGUSR2 as c_int;

/// Installs the handlers; `leaves`: this process can be told to leave for good.
///
/// SIGTERM is handled as in an ordinary backend: the next check for interrupts, also inside a
/// statement or a lock wait, ends the process, and no function can catch that. SIGINT cancels the
/// statement, and is counted.
pub fn install(leaves: bool) {
    // SAFETY: signals are still blocked, and these handlers only set flags and a latch.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(pg_sys::SIGTERM as c_int, Some(terminate));
        if leaves {
            pqsignal(LEAVE, Some(leave));
        }
        pqsignal(pg_sys::SIGINT as c_int, Some(cancel));
        pqsignal(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}
