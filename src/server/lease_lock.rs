//! Leadership by a session lock, which writes nothing while idle.
//!
//! The lock is of the default method, which `pg_advisory_unlock_all()` and its kin do not reach,
//! on a tag that no statement can name: the extension's own object with a sub-id that PostgreSQL
//! never uses for one. So no trigger can drop it, and no user can squat it.
//!
//! PostgreSQL drops such locks when a transaction aborts, so a failed batch loses leadership for
//! a moment: every batch makes sure of the lock first, and it is held until that batch ends.

use super::extension::Extension;
use pgrx::pg_sys;

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// The sub-id of the lock of leadership, and that of starting a worker by hand.
const LEADERSHIP: u16 = 1;
const START: u16 = 2;

fn tag(extension: &Extension, sub_id: u16) -> pg_sys::LOCKTAG {
    // SAFETY: reads a variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: pg_sys::ExtensionRelationId.to_u32(),
        locktag_field3: extension.oid.to_u32(),
        locktag_field4: sub_id,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// Holds the lock from now on, if nobody else does. In a transaction; never waits.
pub fn ensure(extension: &Extension) -> bool {
    let tag = tag(extension, LEADERSHIP);
    // SAFETY: the tag lives through the calls; a lock that was held before is counted twice by
    // then, and counted down again.
    unsafe {
        match pg_sys::LockAcquire(&tag, MODE, true, true) {
            pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => false,
            pg_sys::LockAcquireResult::LOCKACQUIRE_OK => true,
            _ => pg_sys::LockRelease(&tag, MODE, true),
        }
    }
}

/// Lets the lock go. It must be held.
pub fn release(extension: &Extension) -> bool {
    // SAFETY: the tag lives through the call.
    unsafe { pg_sys::LockRelease(&tag(extension, LEADERSHIP), MODE, true) }
}

/// Has whoever else comes here wait until this transaction ends.
pub fn serialize(extension: &Extension) {
    // SAFETY: the tag lives through the call, which waits, and looks for interrupts.
    unsafe { pg_sys::LockAcquire(&tag(extension, START), MODE, false, false) };
}
