//! Which databases the launcher has sent a worker to, and what the worker has found there.
//!
//! It lies in shared memory, so that a launcher that was started afresh finds the workers of the
//! one before, and any session can tell it something.

use super::{board, starter};
use crate::decide::fleet::DatabaseId;
use pgrx::pg_sys;
use std::ffi::c_int;

/// Databases with a worker, or with news for the launcher, at one time.
const ENTRIES: usize = 128;

/// What a worker has found in its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nobody was sent there.
    Unsent,
    /// It has not looked yet.
    Ordered,
    Serving,
    NoExtension,
}

/// One database. Without a worker and without news it is forgotten.
#[derive(Clone, Copy)]
pub struct Entry {
    /// 0: the entry is free.
    pub database: DatabaseId,
    /// 0: its worker has not come yet, or is gone.
    pub pid: c_int,
    pub finding: Finding,
    /// `pg_reaper_stop()` was called.
    pub stopped: bool,
    /// The extension was created, or a start is wanted.
    pub announced: bool,
}

const FREE: Entry =
    Entry { database: 0, pid: 0, finding: Finding::Unsent, stopped: false, announced: false };

#[derive(Clone, Copy)]
pub struct Roster {
    /// 0: there was none yet.
    launcher: c_int,
    entries: [Entry; ENTRIES],
    /// An announcement found no free entry: look everywhere.
    overflowed: bool,
}

impl Roster {
    pub const EMPTY: Roster = Roster { launcher: 0, entries: [FREE; ENTRIES], overflowed: false };

    fn find(&mut self, database: DatabaseId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.database == database)
    }

    fn find_or_make(&mut self, database: DatabaseId) -> Option<&mut Entry> {
        let known = self.entries.iter().position(|entry| entry.database == database);
        let n = known.or_else(|| self.entries.iter().position(|entry| entry.database == 0))?;
        if known.is_none() {
            self.entries[n] = Entry { database, ..FREE };
        }
        Some(&mut self.entries[n])
    }
}

fn change<T>(change: impl FnOnce(&mut Roster) -> T) -> Option<T> {
    board::change(|board| change(&mut board.roster))
}

/// The launcher is process `pid` from now on.
pub fn launcher_is(pid: c_int) {
    change(|roster| roster.launcher = pid);
}

/// Has the launcher look at the roster now.
pub fn wake_launcher() {
    let launcher = board::read(|board| board.roster.launcher).filter(|&pid| pid != 0);
    if let Some(pid) = launcher {
        wake(pid);
    }
}

/// Sets the latch of process `pid`.
pub fn wake(pid: c_int) {
    // SAFETY: a process that has ended in the meantime has no entry, or its successor's latch is
    // set, which does no harm.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// A worker is sent to `database`; false when the roster is full.
pub fn order(database: DatabaseId) -> bool {
    let ordered = change(|roster| {
        let entry = roster.find_or_make(database)?;
        if !alive(entry.pid) {
            entry.pid = 0;
        }
        entry.finding = Finding::Ordered;
        Some(())
    });
    ordered.flatten().is_some()
}

/// The worker of `database` is there, as process `pid`; false when it is not wanted: another one is
/// there already, or it was stopped.
pub fn enter(database: DatabaseId, pid: c_int) -> bool {
    let entered = change(|roster| {
        let entry = roster.find_or_make(database)?;
        if entry.stopped || (entry.pid != pid && alive(entry.pid)) {
            return None;
        }
        entry.pid = pid;
        entry.finding = Finding::Ordered;
        Some(())
    });
    entered.flatten().is_some()
}

/// What the worker of `database` has found.
pub fn found(database: DatabaseId, finding: Finding) {
    change(|roster| roster.find(database).map(|entry| entry.finding = finding));
    wake_launcher();
}

/// The worker of `database`, process `pid`, is gone.
pub fn leave(database: DatabaseId, pid: c_int) {
    change(|roster| {
        if let Some(entry) = roster.find(database).filter(|entry| entry.pid == pid) {
            entry.pid = 0;
        }
    });
    wake_launcher();
}

/// Tells the launcher that a worker of `database` may find something to do.
pub fn announce(database: DatabaseId) {
    change(|roster| match roster.find_or_make(database) {
        Some(entry) => entry.announced = true,
        None => roster.overflowed = true,
    });
    wake_launcher();
}

/// Keeps the launcher from sending a worker to `database`, or not any more.
pub fn stop(database: DatabaseId, stopped: bool) {
    change(|roster| {
        if let Some(entry) = roster.find_or_make(database) {
            entry.stopped = stopped;
        }
    });
    wake_launcher();
}

/// What is known of `database`.
pub fn entry(database: DatabaseId) -> Option<Entry> {
    let find = |entries: &[Entry]| entries.iter().find(|e| e.database == database).copied();
    board::read(|board| find(&board.roster.entries)).flatten()
}

/// All entries, and whether everything is to be looked into. Announcements are taken note of.
pub fn take() -> (Vec<Entry>, bool) {
    let taken = change(|roster| {
        let entries: Vec<_> =
            roster.entries.iter().filter(|entry| entry.database != 0).copied().collect();
        for entry in &mut roster.entries {
            entry.announced = false;
        }
        (entries, std::mem::take(&mut roster.overflowed))
    });
    taken.unwrap_or_default()
}

/// Forgets `database`, unless its worker has come back or it was stopped.
pub fn forget(database: DatabaseId) {
    change(|roster| {
        let entry = roster.find(database);
        if let Some(entry) =
            entry.filter(|entry| entry.pid == 0 && !entry.stopped && !entry.announced)
        {
            *entry = FREE;
        }
    });
}

/// Forgets what was said of databases that are gone.
pub fn retain(exists: impl Fn(DatabaseId) -> bool) {
    change(|roster| {
        for entry in &mut roster.entries {
            if entry.database != 0 && entry.pid == 0 && !exists(entry.database) {
                *entry = FREE;
            }
        }
    });
}

/// Whether there is a process `pid`. A worker that is starting is not known to PostgreSQL yet.
pub fn alive(pid: c_int) -> bool {
    pid != 0 && starter::exists(pid)
}
