//! Transactions that contain their errors.
//!
//! pgrx's own `BackgroundWorker::transaction` commits when its closure returns an error, ends
//! the process when it raises one, and never flushes statistics, so that autovacuum would not
//! learn of our deletes. Hence this one.

use super::dawdle;
use super::failure::Failure;
use pgrx::pg_sys;
use std::panic::{AssertUnwindSafe, UnwindSafe};

/// Runs `work` in a transaction of its own: committed when it returns `Ok`, rolled back when it
/// returns an error, raises one or panics. Only for a worker, outside any transaction.
///
/// Should the roll-back itself fail, that error is not caught: it ends the process, and the
/// postmaster starts another.
pub fn in_transaction<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: reads a variable of this process.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    let outcome = contain(|| {
        // SAFETY: no transaction is open in this worker; an error in here is caught and rolled
        // back below.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let done = work()?;
            pg_sys::PopActiveSnapshot();
            dawdle::here();
            pg_sys::CommitTransactionCommand();
            dawdle::here();
            Ok(done)
        }
    });
    // SAFETY: after an error the transaction is still open and must be rolled back; statistics
    // are reported outside any transaction.
    unsafe {
        if outcome.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::pgstat_report_stat(false);
    }
    outcome
}

/// Runs `work` in a subtransaction of the caller's transaction, rolled back on any error.
pub fn in_subtransaction<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: called within a function call, so a transaction is open; context and owner are
    // put back on either way, as PL/pgSQL does around a block with an exception clause.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let outcome = contain(work);
        if outcome.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}

/// Turns an error raised in `work`, or a panic, into a value. The caller must roll back.
pub fn contain<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    fn execute<T, F>(work: F) -> Result<T, Failure>
    where
        F: FnOnce() -> Result<T, Failure> + UnwindSafe,
    {
        pg_sys::PgTryBuilder::new(work).catch_others(|caught| Err(caught.into())).execute()
    }
    execute(AssertUnwindSafe(work))
}

/// Whether all statements of the transaction go by one snapshot.
pub fn snapshot_is_kept() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}
