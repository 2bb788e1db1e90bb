//! Starting workers, and telling them to leave.

use super::signals::LEAVE;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int};

// SAFETY: as signal.h declares it.
unsafe extern "C" {
    fn kill(pid: c_int, signal: c_int) -> c_int;
}

/// What `pg_stat_activity` calls the workers.
pub const WORKER: &CStr = c"pg_reaper worker";

/// What a worker is started with.
#[derive(Clone, Copy)]
pub struct Order {
    pub database: pg_sys::Oid,
    /// By the launcher, which starts another one when this one ends.
    pub by_launcher: bool,
}

const BY_LAUNCHER: usize = 1 << 32;

impl From<Order> for pg_sys::Datum {
    fn from(order: Order) -> Self {
        let flag = if order.by_launcher { BY_LAUNCHER } else { 0 };
        pg_sys::Datum::from(order.database.to_u32() as usize | flag)
    }
}

impl From<pg_sys::Datum> for Order {
    fn from(datum: pg_sys::Datum) -> Self {
        let database = pg_sys::Oid::from(datum.value() as u32);
        Order { database, by_launcher: datum.value() & BY_LAUNCHER != 0 }
    }
}

/// A worker that this process has started.
pub struct Started {
    handle: *mut pg_sys::BackgroundWorkerHandle,
    /// It was told to make room for another.
    pub asked_to_leave: bool,
}

impl Started {
    /// Whether its process has ended, or will never come.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle lives until it is dropped.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &mut pid) };
        matches!(
            status,
            pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
        )
    }

    /// Waits until its process runs; `None` when it does not come.
    pub fn wait(&self) -> Option<c_int> {
        let mut pid = 0;
        // SAFETY: as above; looks for interrupts while it waits.
        let status = unsafe { pg_sys::WaitForBackgroundWorkerStartup(self.handle, &mut pid) };
        (status == pg_sys::BgwHandleStatus::BGWH_STARTED).then_some(pid)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SAFETY: allocated by PostgreSQL in a context that lives as long as this process.
        unsafe { pg_sys::pfree(self.handle.cast()) };
    }
}

fn copy(text: &CStr, to: &mut [c_char]) {
    for (to, from) in to.iter_mut().zip(text.to_bytes_with_nul()) {
        *to = *from as c_char;
    }
}

/// Starts a worker; `None` when no slot is free (`max_worker_processes`). One of the launcher's is
/// started again by it alone; any other one by the postmaster, a second after it has ended.
pub fn start(order: Order) -> Option<Started> {
    let mut worker = pg_sys::BackgroundWorker::default();
    copy(WORKER, &mut worker.bgw_name);
    copy(WORKER, &mut worker.bgw_type);
    copy(c"pg_reaper", &mut worker.bgw_library_name);
    copy(c"pg_reaper_worker_main", &mut worker.bgw_function_name);
    worker.bgw_flags =
        (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = if order.by_launcher { pg_sys::BGW_NEVER_RESTART } else { 1 };
    worker.bgw_main_arg = order.into();
    let mut handle = std::ptr::null_mut();
    // SAFETY: the handle is allocated in the top context, to live as long as this process.
    unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(before);
        registered.then(|| Started { handle, asked_to_leave: false })
    }
}

/// Whether there is a process `pid`.
pub fn exists(pid: c_int) -> bool {
    // SAFETY: signal 0 is none; it only asks.
    unsafe { kill(pid, 0) == 0 }
}

/// Tells the worker that is process `pid` to leave for good, unless it is no worker of ours.
pub fn tell_to_leave(pid: c_int) {
    // SAFETY: a string of PostgreSQL's, or null; and a signal that our workers have a handler for.
    unsafe {
        let kind = pg_sys::GetBackgroundWorkerTypeByPid(pid);
        if !kind.is_null() && CStr::from_ptr(kind) == WORKER {
            kill(pid, LEAVE);
        }
    }
}
