//! What pgrx loses of an error: a SQLSTATE that has no name, and text that is not UTF-8.
//!
//! pgrx keeps the code of an error only where PostgreSQL names it; one that a trigger made up
//! (`RAISE … USING ERRCODE = 'ZZ123'`) would become an internal error. PostgreSQL calls an error's
//! context callbacks while it still has the code, so we note it there.

use super::encoding;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_void};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI32, Ordering};

static LAST: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// Message, detail and hint of the last report, in a database that is not UTF-8.
    static WORDS: RefCell<[Option<CString>; 3]> = const { RefCell::new([None, None, None]) };
}

/// While it lives, the code of whatever is reported is noted.
pub struct Watch {
    callback: Box<pg_sys::ErrorContextCallback>,
}

impl Watch {
    pub fn begin() -> Watch {
        forget();
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
        // What was reported and did not end the statement belongs to no error to come.
        if !std::thread::panicking() {
            forget();
        }
    }
}

fn forget() {
    LAST.store(0, Ordering::Relaxed);
    WORDS.take();
}

unsafe extern "C-unwind" fn note(_argument: *mut c_void) {
    // SAFETY: PostgreSQL calls this in the midst of a report, when there is a code to get.
    LAST.store(unsafe { pg_sys::geterrcode() }, Ordering::Relaxed);
    if encoding::is_utf8() {
        return;
    }
    // SAFETY: as above; the copy is made outside of the memory of errors, and freed.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let error = pg_sys::CopyErrorData();
        let words = [(*error).message, (*error).detail, (*error).hint];
        WORDS.set(words.map(|text| (!text.is_null()).then(|| CStr::from_ptr(text).to_owned())));
        pg_sys::FreeErrorData(error);
        pg_sys::MemoryContextSwitchTo(before);
    }
}

/// Message, detail and hint of the error that was just caught, where pgrx could not read them. Its
/// transaction is still open, and must be rolled back.
pub fn words() -> Option<[Option<String>; 3]> {
    let words = WORDS.take();
    if words.iter().flatten().all(|text| text.as_bytes().is_ascii()) {
        return None;
    }
    // SAFETY: what the roll-back does first; the conversion below must not wait for a lock of ours.
    unsafe { pg_sys::LWLockReleaseAll() };
    let converted = |text: &CString| {
        pg_sys::PgTryBuilder::new(AssertUnwindSafe(|| encoding::decode(text)))
            .catch_others(|_| encoding::neutral(text))
            .execute()
    };
    Some(words.map(|text| text.as_ref().map(converted)))
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
