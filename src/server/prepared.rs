//! Statements that run many times: parsed and planned once.

use super::delete::{self, Deleted};
use super::encoding::encode;
use super::failure::Failure;
use super::sandbox::{Road, with_plain_input, with_road};
use super::sql::{Arg, Row, spi};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{c_int, c_long};

/// A statement with its plan, which does not depend on the values of its parameters.
///
/// PostgreSQL makes the plan anew when something that it depends on has changed, and looks at each
/// run whether the current user may do what it does.
pub struct Prepared {
    text: String,
    /// Where the planner cannot know how small a range is that comes as a parameter, or how few tids.
    road: Option<Road>,
    plan: Cell<pg_sys::SPIPlanPtr>,
}

impl Prepared {
    pub fn new(sql: &str) -> Prepared {
        Prepared::made(sql, None)
    }

    /// One that goes this way, whatever the planner thinks of that.
    pub fn by(road: Road, sql: &str) -> Prepared {
        Prepared::made(sql, Some(road))
    }

    fn made(sql: &str, road: Option<Road>) -> Prepared {
        Prepared { text: sql.into(), road, plan: Cell::new(std::ptr::null_mut()) }
    }

    /// Reads: returns what `map` made of its rows, as the active snapshot has them.
    pub fn read<T>(
        &self,
        args: &[Arg],
        map: impl FnMut(&Row) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        self.run(true, args, map).map(|(_, rows)| rows)
    }

    /// Writes what the active snapshot shows; returns how many rows it touched, and what `map` made
    /// of those that it returned.
    pub fn write<T>(
        &self,
        args: &[Arg],
        map: impl FnMut(&Row) -> Result<T, Failure>,
    ) -> Result<(u64, Vec<T>), Failure> {
        self.run(false, args, map)
    }

    /// Deletes what the active snapshot shows; up to `most` rows in the order of the index that the
    /// plan goes along. `None`, and nothing done: the plan cannot be run so.
    pub fn delete(&self, args: &[Arg], most: Option<u64>) -> Result<Option<Deleted>, Failure> {
        let mut done = None;
        let none = |_: &Row| Ok(());
        spi(args, none, |types, values, nulls| {
            let plan = self.plan(args.len() as c_int, types)?;
            // SAFETY: connected; the plan is kept, is of one statement, and is held while that runs;
            // the arrays are as long as `args`, and a snapshot is active.
            unsafe {
                let sources = pg_sys::SPI_plan_get_plan_sources(plan);
                let source = (*(*sources).elements).ptr_value.cast();
                let cached = self.planned(plan);
                if !cached.is_null() {
                    done = delete::delete(source, cached, (types, values, nulls), most);
                    pg_sys::ReleaseCachedPlan(cached, pg_sys::CurrentResourceOwner);
                }
            }
            Ok(0)
        })?;
        Ok(done)
    }

    fn run<T>(
        &self,
        reads: bool,
        args: &[Arg],
        map: impl FnMut(&Row) -> Result<T, Failure>,
    ) -> Result<(u64, Vec<T>), Failure> {
        spi(args, map, |types, values, nulls| {
            let plan = self.plan(args.len() as c_int, types)?;
            // SAFETY: connected; the plan is kept, the arrays are as long as `args`, and a
            // snapshot is active.
            Ok(unsafe {
                if self.road.is_some() {
                    // Not where triggers run: how they read and plan what is theirs is not ours to
                    // steer.
                    let cached = self.planned(plan);
                    if !cached.is_null() {
                        pg_sys::ReleaseCachedPlan(cached, pg_sys::CurrentResourceOwner);
                    }
                }
                let snapshot = pg_sys::GetActiveSnapshot();
                let none = std::ptr::null_mut();
                pg_sys::SPI_execute_snapshot(
                    plan,
                    values,
                    nulls,
                    snapshot,
                    none,
                    reads,
                    true,
                    0 as c_long,
                )
            })
        })
    }

    /// The plan as it is to be executed, analysed and made anew where it must be; null where that fails.
    ///
    /// # Safety
    /// Connected; `plan` is this statement's and kept, and the caller releases what comes back.
    unsafe fn planned(&self, plan: pg_sys::SPIPlanPtr) -> *mut pg_sys::CachedPlan {
        // SAFETY: as the caller promises.
        let made = || unsafe { pg_sys::SPI_plan_get_cached_plan(plan) };
        with_plain_input(|| self.road.map_or_else(made, |road| with_road(road, made)))
    }

    fn plan(&self, count: c_int, types: *mut pg_sys::Oid) -> Result<pg_sys::SPIPlanPtr, Failure> {
        if self.plan.get().is_null() {
            let options = pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int;
            let text = encode(&self.text);
            // SAFETY: connected; a plan that is kept outlives the connection, and is freed below.
            unsafe {
                let plan = with_plain_input(|| {
                    pg_sys::SPI_prepare_cursor(text.as_ptr(), count, types, options)
                });
                if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                    return Err(Failure::internal("SPI_prepare failed"));
                }
                self.plan.set(plan);
            }
        }
        Ok(self.plan.get())
    }
}

/// Has all statements of this session planned anew. A function in a trigger may have one that was planned
/// for what is no more, such as the type that a column had: PostgreSQL raises an error then for as long as
/// the session lasts, and that of a worker does not end.
pub fn plan_anew() {
    // SAFETY: marks what is kept; needs no transaction.
    unsafe { pg_sys::ResetPlanCache() };
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let plan = self.plan.get();
        if !plan.is_null() {
            // SAFETY: made and kept above, and used by nobody any more. Freeing needs no transaction.
            unsafe { pg_sys::SPI_freeplan(plan) };
        }
    }
}

/// Runs `work` with the newest snapshot that there is, in a transaction that keeps to an old one too.
pub fn with_newest_snapshot<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: in a transaction. On an error that is raised, its end takes the snapshot away.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let outcome = work();
        pg_sys::PopActiveSnapshot();
        outcome
    }
}

/// Runs `work` with a snapshot of now, and what this transaction has done itself.
pub fn with_snapshot_of_now<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: in a transaction. On an error that is raised, its end takes the snapshot away.
    unsafe {
        pg_sys::PushCopiedSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::UpdateActiveSnapshotCommandId();
        let outcome = work();
        pg_sys::PopActiveSnapshot();
        outcome
    }
}
