//! What an operator sees of a process in `ps` and in `pg_stat_activity`.

use super::encoding::reportable;
use pgrx::pg_sys;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

static WAIT_EVENT: AtomicU32 = AtomicU32::new(0);

/// Shows `text` behind the name of the process in `ps`.
pub fn show(text: &str) {
    let text = CString::new(reportable(text)).unwrap_or_default();
    // SAFETY: a NUL-terminated string, of which PostgreSQL makes a copy.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::set_ps_display(text.as_ptr());
        #[cfg(not(feature = "pg15"))]
        pg_sys::set_ps_display_with_len(text.as_ptr(), text.as_bytes().len());
    }
}

/// Shows what is being done as the query of this process; nothing when it idles.
pub fn activity(text: Option<&str>) {
    let state = match text {
        Some(_) => pg_sys::BackendState::STATE_RUNNING,
        None => pg_sys::BackendState::STATE_IDLE,
    };
    let text = CString::new(text.map(reportable).unwrap_or_default()).unwrap_or_default();
    // SAFETY: a NUL-terminated string, of which PostgreSQL makes a copy.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}

/// Names what this process waits for between its turns, where the version can.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub fn name_wait_event(name: &std::ffi::CStr) {
    // SAFETY: the name is NUL-terminated, and copied.
    WAIT_EVENT.store(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) }, Ordering::Relaxed);
}

/// Names what this process waits for between its turns, where the version can.
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
pub fn name_wait_event(_name: &std::ffi::CStr) {}

/// The wait event between the turns of this process.
pub fn wait_event() -> u32 {
    match WAIT_EVENT.load(Ordering::Relaxed) {
        0 => pg_sys::PG_WAIT_EXTENSION,
        named => named,
    }
}
