//! The SQLSTATE of an error that has no name in PostgreSQL.
//!
//! pgrx keeps the code of an error only where PostgreSQL names it; one that a trigger made up
//! (`RAISE … USING ERRCODE = 'ZZ123'`) would become an internal error. PostgreSQL calls an error's
//! context callbacks while it still has the code, so we note it there.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, Ordering};

static LAST: AtomicI32 = AtomicI32::new(0);

/// While it lives, the code of whatever is reported is noted.
pub struct Watch {
    callback: Box<pg_sys::ErrorContextCallback>,
}

impl Watch {
    pub fn begin() -> Watch {
        LAST.store(0, Ordering::Relaxed);
        // SAFETY: the callback is boxed, so it stays where it is until `drop` takes it off the
        // stack again, on a return as on an unwinding.
        unsafe {
            let mut callback = Box::new(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(note),
                arg: std::ptr::null_mut(),
            });
            pg_sys::error_context_stack = &mut *callback;
            Watch { callback }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: watches are nested like the calls they surround.
        unsafe { pg_sys::error_context_stack = self.callback.previous };
    }
}

unsafe extern "C-unwind" fn note(_argument: *mut c_void) {
    // SAFETY: PostgreSQL calls this in the midst of a report, when there is a code to get.
    LAST.store(unsafe { pg_sys::geterrcode() }, Ordering::Relaxed);
}

/// Whether the last report said that there is no such database.
pub fn says_no_database() -> bool {
    let code = PgSqlErrorCode::from(LAST.load(Ordering::Relaxed));
    code == PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME
}

/// The packed SQLSTATE of the error that was caught as `code`.
pub fn of(code: PgSqlErrorCode) -> i32 {
    let last = LAST.load(Ordering::Relaxed);
    let nameless = PgSqlErrorCode::from(last) == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
    if code == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR && last != 0 && nameless {
        last
    } else {
        code as i32
    }
}
