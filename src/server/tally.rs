//! Counting what was reaped, once it is durable.
//!
//! Most batches commit without waiting for the disk, so a crash may undo the last of them: their
//! rows are there again, and are reaped again. What is counted or said of them must not come twice,
//! so it waits for the disk, once for many batches.

use super::status::Place;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    static UNCOUNTED: Cell<u64> = const { Cell::new(0) };
}

/// Notes rows whose batch has committed.
pub fn note(rows: u64) {
    UNCOUNTED.set(UNCOUNTED.get() + rows);
}

/// Makes all that this worker has committed durable, and counts it.
pub fn settle(place: &Place) {
    let rows = UNCOUNTED.take();
    if rows > 0 {
        // SAFETY: the end of the last commit of this process, or of one that is durable already.
        unsafe { pg_sys::XLogFlush(pg_sys::XactLastCommitEnd) };
        place.tell(|slot| slot.rows_reaped += rows as i64);
    }
}
