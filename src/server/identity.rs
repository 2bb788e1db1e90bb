//! What a worker is called.

use super::clock::iso;
use super::encoding;
use super::transaction::in_transaction;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// What the database of this process is called.
pub fn database() -> String {
    let name = in_transaction(|| {
        // SAFETY: looks into the catalogue, in a transaction; a palloc'd string or null.
        let name = unsafe { pg_sys::get_database_name(pg_sys::MyDatabaseId) };
        // SAFETY: NUL-terminated, as PostgreSQL made it.
        Ok((!name.is_null()).then(|| encoding::neutral(unsafe { CStr::from_ptr(name) })))
    });
    name.ok().flatten().unwrap_or_default()
}

/// An id that no other start of a worker has, and that a person can read: where, which database,
/// which process, since when.
pub fn leader(database: &str, pid: c_int, started: i64) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    // SAFETY: reads a variable of this process.
    let port = unsafe { pg_sys::PostPortNumber };
    // It is written into a row of this database, which may not have every character.
    encoding::reportable(&format!("{host}:{port}/{database}/{pid}@{}", iso(started)))
}
