//! Telling the launcher, once this transaction commits, that a database may have the extension.

use super::roster;
use crate::decide::fleet::DatabaseId;
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_void;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static REGISTERED: Once = Once::new();
static DATABASE: AtomicU32 = AtomicU32::new(0);

/// Announces `database` when the transaction under way commits, and not otherwise.
pub fn at_commit(database: DatabaseId) {
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    REGISTERED.call_once(|| unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
    });
    DATABASE.store(database, Ordering::Relaxed);
}

// SAFETY: only PostgreSQL calls it, at the end of a transaction; it does not use its argument.
#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            let database = DATABASE.swap(0, Ordering::Relaxed);
            if database != 0 {
                // A new extension begins anew, whatever was stopped before.
                roster::stop(database, false);
                roster::announce(database);
            }
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            DATABASE.store(0, Ordering::Relaxed);
        }
        _ => {}
    }
}
