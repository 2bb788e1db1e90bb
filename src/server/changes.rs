//! Whether the catalogue may have changed: how often we were told that something has.
//!
//! Whoever changes a relation, its columns, keys, children or owner, a schema, a function, a type,
//! whatever else a filter can name, or what roles may do, has every session forget what it keeps of that, and of a relation even where it
//! keeps nothing. We are told when a transaction begins, and with each lock.

use pgrx::{pg_guard, pg_sys};
use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static CHANGES: AtomicU64 = AtomicU64::new(0);

/// How many there have been so far. Asked before something is read, it is the same afterwards for as
/// long as that holds.
pub fn so_far() -> u64 {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(listen);
    CHANGES.load(Ordering::Relaxed)
}

fn listen() {
    let nothing = pg_sys::Datum::null();
    // SAFETY: once in the life of a process that is connected; the functions only count.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
        for cache in [
            pg_sys::SysCacheIdentifier::NAMESPACEOID,
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM,
            // Whose a trigger's function is, and what the names in a filter stand for.
            pg_sys::SysCacheIdentifier::PROCOID,
            pg_sys::SysCacheIdentifier::OPEROID,
            pg_sys::SysCacheIdentifier::TYPEOID,
            pg_sys::SysCacheIdentifier::ENUMOID,
            pg_sys::SysCacheIdentifier::COLLOID,
            pg_sys::SysCacheIdentifier::CASTSOURCETARGET,
            pg_sys::SysCacheIdentifier::TSCONFIGOID,
            pg_sys::SysCacheIdentifier::TSDICTOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as c_int, Some(entry_changed), nothing);
        }
    }
}

// SAFETY: only PostgreSQL calls it, and it only counts.
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_nothing: pg_sys::Datum, _relation: pg_sys::Oid) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

// SAFETY: only PostgreSQL calls it, and it only counts.
#[pg_guard]
unsafe extern "C-unwind" fn entry_changed(_nothing: pg_sys::Datum, _cache: c_int, _hash: u32) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}
