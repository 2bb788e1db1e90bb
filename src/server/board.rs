//! The shared memory of pg_reaper: what each worker tells, whom the launcher has sent where, and
//! the brake.
//!
//! With the library preloaded it is a part of the server's. Without, since PostgreSQL 17, it is a
//! segment that the first process to ask for it makes; before 17 there is none.

use super::roster::Roster;
use super::status::{SLOTS, Slot};
use crate::decide::brake::Brake;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_guard, pg_shmem_init, pg_sys};
use std::sync::atomic::{AtomicBool, Ordering};

/// All that pg_reaper keeps in shared memory.
#[derive(Clone, Copy)]
pub struct Board {
    pub slots: [Slot; SLOTS],
    pub roster: Roster,
    pub brake: Brake,
}

const EMPTY: Board =
    Board { slots: [Slot::EMPTY; SLOTS], roster: Roster::EMPTY, brake: Brake::NEW };

// SAFETY: plain data without pointers, guarded by the lock it lies behind.
unsafe impl PGRXSharedMemory for Board {}

// SAFETY: the name is ours.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"pg_reaper") };
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Asks for shared memory. Only while the library is preloaded.
pub fn init() {
    pg_shmem_init!(BOARD = EMPTY);
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether the library was preloaded: then there is a launcher.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Whether there is shared memory.
pub fn available() -> bool {
    preloaded() || segment::exists()
}

/// Reads it, if there is any. `read` must not raise an error.
pub fn read<T>(read: impl FnOnce(&Board) -> T) -> Option<T> {
    if preloaded() { Some(read(&BOARD.share())) } else { segment::change(|board| read(board)) }
}

/// Changes it, if there is any. `change` must not raise an error.
pub fn change<T>(change: impl FnOnce(&mut Board) -> T) -> Option<T> {
    if preloaded() { Some(change(&mut BOARD.exclusive())) } else { segment::change(change) }
}

/// Without the preload, makes the segment, or finds it: before anything of it is used, and not on
/// the way out of a process.
pub fn attach() {
    if !preloaded() {
        segment::attach();
    }
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
mod segment {
    use super::{Board, EMPTY, pg_sys};
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicPtr, Ordering};

    struct Segment {
        lock: pg_sys::LWLock,
        board: Board,
    }

    static SEGMENT: AtomicPtr<Segment> = AtomicPtr::new(std::ptr::null_mut());

    // SAFETY: only PostgreSQL calls it, once, with the memory of the segment.
    unsafe extern "C-unwind" fn init(memory: *mut c_void) {
        let segment = memory.cast::<Segment>();
        // SAFETY: as much memory as was asked for, which nobody else sees yet.
        unsafe {
            pg_sys::LWLockInitialize(&raw mut (*segment).lock, pg_sys::LWLockNewTrancheId());
            (&raw mut (*segment).board).write(EMPTY);
        }
    }

    pub fn attach() {
        if exists() {
            return;
        }
        let mut found = false;
        // SAFETY: the segment stays mapped for the life of this process, and is as large as what
        // lies in it; the tranche was written by whoever made it.
        unsafe {
            let segment = pg_sys::GetNamedDSMSegment(
                concat!("pg_reaper ", env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
                size_of::<Segment>(),
                Some(init),
                &mut found,
            )
            .cast::<Segment>();
            pg_sys::LWLockRegisterTranche((*segment).lock.tranche.into(), c"pg_reaper".as_ptr());
            SEGMENT.store(segment, Ordering::Relaxed);
        }
    }

    pub fn exists() -> bool {
        !SEGMENT.load(Ordering::Relaxed).is_null()
    }

    pub fn change<T>(change: impl FnOnce(&mut Board) -> T) -> Option<T> {
        let segment = SEGMENT.load(Ordering::Relaxed);
        if segment.is_null() {
            return None;
        }
        // SAFETY: the segment is mapped, and nobody else touches the board under its lock.
        unsafe {
            pg_sys::LWLockAcquire(&raw mut (*segment).lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            let outcome = change(&mut (*segment).board);
            pg_sys::LWLockRelease(&raw mut (*segment).lock);
            Some(outcome)
        }
    }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
mod segment {
    use super::Board;

    pub fn attach() {}

    pub fn exists() -> bool {
        false
    }

    pub fn change<T>(_change: impl FnOnce(&mut Board) -> T) -> Option<T> {
        None
    }
}
