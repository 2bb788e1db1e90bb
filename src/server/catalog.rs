//! What a process without a database can read: the catalogues that all databases share.

use super::encoding::neutral;
use pgrx::pg_sys;
use std::ffi::CStr;

/// A database of the server.
pub struct Database {
    pub oid: pg_sys::Oid,
    pub name: String,
    /// It is no template, and allows connections.
    pub open: bool,
}

/// All databases. In a transaction.
pub fn databases() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: a scan of a catalogue that every process can open, as autovacuum's launcher does it;
    // each tuple is read before the next is fetched.
    unsafe {
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, mode);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let tuple = pg_sys::heap_getnext(scan, forward);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            found.push(Database {
                oid: row.oid,
                name: neutral(CStr::from_ptr(row.datname.data.as_ptr())),
                open: row.datallowconn && !row.datistemplate && row.datconnlimit != INVALID,
            });
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, mode);
    }
    found
}

/// `datconnlimit` of a database whose `DROP` was interrupted.
const INVALID: i32 = -2;

/// Whether nobody holds `database` locked against sessions: to drop or rename it, or as a
/// template. In a transaction, to whose end it is held then.
pub fn is_accessible(database: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: database.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: the tag lives through the call, which does not wait.
    let outcome = unsafe {
        pg_sys::LockAcquire(&tag, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE, false, true)
    };
    outcome != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
