//! `pg_reaper_start()` and `pg_reaper_stop()`: the worker of this database.

use super::answer;
use crate::decide::refusal::Refusal;
use crate::server::clock::ticks;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::roster::{self, Finding};
use crate::server::sandbox::{Restriction, as_owner};
use crate::server::starter::{self, Order};
use crate::server::{announcement, board, catalog, lease_lock, say, settings, sql};
use pgrx::prelude::*;
use std::time::Duration;

/// How long a worker may take to come or to go before we say that it does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the worker of this database, or lets the launcher start it again; returns its process id.
#[pg_extern(sql = false)]
fn pg_reaper_start() -> i32 {
    answer(start)
}

/// Stops the worker of this database until somebody starts it, or the server restarts; returns how
/// many there were.
#[pg_extern(sql = false)]
fn pg_reaper_stop() -> i32 {
    answer(stop)
}

/// Called as the extension is created: has the launcher look into this database at commit, or says
/// why no worker will come.
#[pg_extern(sql = false)]
fn pg_reaper_announce() {
    answer(|| {
        let database = own_database();
        announcement::at_commit(database.oid.to_u32());
        if !board::preloaded() {
            let hint = Extension::any()?.sql(
                "Add it (shared_preload_libraries = 'pg_reaper') and restart the server, or start \
                 a worker until the next restart: SELECT @schema@.pg_reaper_start(). Until then, \
                 SELECT @schema@.pg_reaper_sweep() reaps by hand.",
            );
            say::warn_hint(
                PgSqlErrorCode::ERRCODE_WARNING,
                "pg_reaper is not in shared_preload_libraries, so no worker reaps anything",
                &hint,
            );
        } else if !database.open || !settings::databases().allow(&database.name) {
            let refusal = Refusal::NotServed { database: database.name };
            let code = PgSqlErrorCode::ERRCODE_WARNING;
            say::warn_hint(code, &refusal.to_string(), &refusal.hint());
        }
        Ok(())
    })
}

fn own_database() -> catalog::Database {
    // SAFETY: reads a variable of this process.
    let own = unsafe { pg_sys::MyDatabaseId };
    let found = catalog::databases().into_iter().find(|database| database.oid == own);
    found.unwrap_or(catalog::Database { oid: own, name: String::new(), open: false })
}

fn start() -> Result<i32, Failure> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Refusal::InRecovery.into());
    }
    let extension = Extension::any()?;
    // Two who start one at the same time start one.
    lease_lock::serialize(&extension);
    if let Some(&pid) = workers()?.first() {
        say::notice(&format!("the worker of this database is running already, as process {pid}"));
        return Ok(pid);
    }
    let database = own_database();
    let pid = if board::preloaded() { by_launcher(&database)? } else { by_ourselves(&database)? };
    let until = if board::preloaded() { "" } else { " until the server restarts" };
    let name = &database.name;
    say::notice(&format!("the worker of database \"{name}\" has started, as process {pid}{until}"));
    Ok(pid)
}

/// Has the launcher start it.
fn by_launcher(database: &catalog::Database) -> Result<i32, Failure> {
    if !database.open || !settings::databases().allow(&database.name) {
        return Err(Refusal::NotServed { database: database.name.clone() }.into());
    }
    let id = database.oid.to_u32();
    roster::stop(id, false);
    roster::announce(id);
    let found = wait_for(|| {
        let entry = roster::entry(id)?;
        match entry.finding {
            Finding::Serving if entry.pid != 0 => Some(entry.pid),
            _ => None,
        }
    });
    found.ok_or_else(|| Refusal::NotStarted { database: database.name.clone() }.into())
}

/// Starts one that the postmaster looks after.
fn by_ourselves(database: &catalog::Database) -> Result<i32, Failure> {
    let started = starter::start(Order { database: database.oid, by_launcher: false });
    let started = started.ok_or(Refusal::NoSlot)?;
    let refused = || Failure::from(Refusal::NotStarted { database: database.name.clone() });
    let pid = started.wait().ok_or_else(refused)?;
    // Until it has connected, nobody could find it to stop it.
    let connected = wait_for(|| {
        let running = workers().is_ok_and(|running| running.contains(&pid));
        (running || started.has_ended()).then_some(running)
    });
    if connected == Some(true) { Ok(pid) } else { Err(refused()) }
}

fn stop() -> Result<i32, Failure> {
    Extension::any()?;
    let database = own_database();
    // Before the launcher hears of it, and tells them first.
    let mut told = workers()?;
    roster::stop(database.oid.to_u32(), true);
    told.iter().for_each(|pid| starter::tell_to_leave(*pid));
    let gone = wait_for(|| {
        let running = workers().ok()?;
        for &pid in &running {
            if !told.contains(&pid) {
                starter::tell_to_leave(pid);
                told.push(pid);
            }
        }
        running.is_empty().then_some(())
    });
    if gone.is_none() {
        return Err(Refusal::NotStopped { pids: told }.into());
    }
    let name = &database.name;
    match told.len() {
        0 => say::notice(&format!("no worker of database \"{name}\" was running; none starts")),
        _ => say::notice(&format!("the worker of database \"{name}\" has stopped")),
    }
    Ok(i32::try_from(told.len()).unwrap_or(i32::MAX))
}

/// The processes of the workers of this database.
fn workers() -> Result<Vec<i32>, Failure> {
    let statement = sql::statement(include_str!("../../sql/workers.sql"));
    // Nobody else sees what kind of process they are.
    let superuser = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    let pids = as_owner(superuser, Restriction::Full, || {
        sql::query(&statement, &[], |row| Ok(row.int8(1)))
    })?;
    Ok(pids.into_iter().flatten().filter_map(|pid| i32::try_from(pid).ok()).collect())
}

/// Asks until there is an answer, or patience has run out.
fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = ticks() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || ticks() >= until {
            return answer;
        }
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: waits on this process's own latch.
        unsafe {
            pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, 10, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            // What the activity of others was is kept for the length of a transaction.
            pg_sys::pgstat_clear_snapshot();
        }
        check_for_interrupts!();
    }
}
