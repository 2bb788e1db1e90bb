//! Acting as a table's owner, and no further.
//!
//! A trigger runs as whoever deletes. A superuser who deletes from another's table lends them
//! its power, and `SET ROLE` is no sandbox: the trigger can `RESET ROLE`. So, as `VACUUM` and
//! index maintenance do, we switch to the owner in a security-restricted context with a
//! `search_path` of ours, and undo every setting that the trigger left behind.

use super::failure::Failure;
use pgrx::pg_sys;
use std::ffi::CStr;

/// Who the current user is: the one whose rights count.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetUserId() }
}

/// Whether `role` has the rights of `owner`, as a superuser does.
pub fn may_act_for(role: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
    // SAFETY: looks into the role caches, within a transaction.
    unsafe { pg_sys::has_privs_of_role(role, owner) }
}

/// Whether `role` may do anything.
fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: looks into the role caches, within a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether this session can become nobody but `owner`: then a trigger of theirs has nothing to
/// gain from it, and the restrictions may be left off.
pub fn session_belongs_to(owner: pg_sys::Oid) -> bool {
    // SAFETY: reads variables of this process.
    unsafe {
        pg_sys::GetUserId() == owner
            && pg_sys::GetSessionUserId() == owner
            && pg_sys::GetOuterUserId() == owner
            && pg_sys::GetAuthenticatedUserId() == owner
    }
}

/// What the sandbox keeps a trigger from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Restriction {
    /// No change of role, no temporary objects, no deferred triggers.
    Full,
    /// Only the `search_path` is pinned; for a session that belongs to the owner anyway.
    PathOnly,
}

/// How tightly a caller's session is held that acts as `owner`.
pub fn restriction_of(owner: pg_sys::Oid) -> Restriction {
    if session_belongs_to(owner) { Restriction::PathOnly } else { Restriction::Full }
}

/// Sets a setting until the nesting level or the transaction ends.
pub fn set_locally(name: &CStr, value: &CStr) {
    set_until_then(name, value, pg_sys::GucContext::PGC_USERSET);
}

fn set_until_then(name: &CStr, value: &CStr, context: pg_sys::GucContext::Type) {
    // SAFETY: both strings are NUL-terminated; GUC_ACTION_SAVE is undone at the nesting level.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

fn pin_path() {
    set_path(c"pg_catalog, pg_temp");
}

/// Sets the `search_path` until the nesting level of settings ends.
pub fn set_path(path: &CStr) {
    set_locally(c"search_path", path);
}

/// Runs `work`, a function called from SQL, with a `search_path` of ours: the caller's may name
/// operators and types of somebody else's making. Names are quoted only where they must be.
pub fn with_pinned_path<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    nested(|| {
        pin_path();
        set_locally(c"quote_all_identifiers", c"off");
        // As in the worker.
        set_locally(c"plan_cache_mode", c"auto");
        work()
    })
}

/// How a statement comes to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Along an index, in its order.
    Index,
    /// By their tids alone: no other row is looked at, so that none can make a filter raise an error.
    Tids,
}

/// Runs `work`, which plans a statement, with nothing to choose but one road. Only planning: what
/// triggers plan is not ours to steer.
pub fn with_road<T>(road: Road, work: impl FnOnce() -> T) -> T {
    let choices = [
        (c"enable_seqscan", None),
        (c"enable_bitmapscan", None),
        (c"enable_sort", None),
        (c"enable_indexscan", Some(Road::Index)),
        (c"enable_indexonlyscan", Some(Road::Index)),
        (c"enable_tidscan", Some(Road::Tids)),
    ];
    nested(|| {
        for (choice, of) in choices {
            set_locally(choice, if of == Some(road) { c"on" } else { c"off" });
        }
        work()
    })
}

/// Runs `work`, which parses SQL of ours or a filter as it was kept, so that its literals mean what
/// they meant when they were written down: PostgreSQL never spells them out as `E''`.
pub fn with_plain_input<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: reads two settings of this process.
    if unsafe { pg_sys::standard_conforming_strings && pg_sys::Array_nulls } {
        // As in nearly every session, and this comes with each batch.
        return work();
    }
    nested(|| {
        set_locally(c"standard_conforming_strings", c"on");
        set_locally(c"array_nulls", c"on");
        work()
    })
}

/// Runs `work` so that values are written as every session reads them alike, and exactly; to be read
/// by [`with_plain_input`].
pub fn with_plain_output<T>(work: impl FnOnce() -> T) -> T {
    nested(|| {
        set_locally(c"standard_conforming_strings", c"on");
        set_locally(c"datestyle", c"ISO");
        set_locally(c"intervalstyle", c"postgres");
        set_locally(c"extra_float_digits", c"1");
        set_locally(c"bytea_output", c"hex");
        work()
    })
}

/// Runs `work` in a nesting level of settings: what it sets is undone here, or by the abort when
/// an error is raised.
fn nested<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the level is ended before this returns.
    unsafe {
        let nest = pg_sys::NewGUCNestLevel();
        let outcome = work();
        pg_sys::AtEOXact_GUC(false, nest);
        outcome
    }
}

/// Runs `work` as `owner`. On an error that is raised, the roll-back of the (sub)transaction
/// puts user and settings back; on a return, this does.
pub fn as_owner<T>(
    owner: pg_sys::Oid,
    restriction: Restriction,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    nested(|| {
        pin_path();
        let restrictions = match restriction {
            Restriction::Full => pg_sys::SECURITY_RESTRICTED_OPERATION,
            Restriction::PathOnly => 0,
        };
        let flags = (restrictions | pg_sys::SECURITY_NOFORCE_RLS) as i32;
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: user and security context are put back when `work` returns, and by the abort of
        // the surrounding (sub)transaction when an error is raised.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(owner, context | flags);
            let outcome = work();
            pg_sys::SetUserIdAndSecContext(user, context);
            outcome
        }
    })
}

/// Runs `work`, which is about a table of pg_reaper's own, with no more power than its `owner` has: what
/// is on a table, an index too, is run as whoever plans or runs a statement. From a superuser nothing
/// is kept, and this comes with each batch.
pub fn no_more_than<T>(
    owner: pg_sys::Oid,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    if is_superuser(owner) { work() } else { as_owner(owner, Restriction::Full, work) }
}

/// Runs `work` with `lock_timeout` bounded, unless it is shorter already.
pub fn with_lock_timeout<T>(
    limit: std::time::Duration,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let value = std::ffi::CString::new(limit.as_millis().max(1).to_string()).unwrap_or_default();
    nested(|| {
        // SAFETY: reads a setting of this process.
        let now = i128::from(unsafe { pg_sys::LockTimeout });
        if now == 0 || now > limit.as_millis() as i128 {
            set_locally(c"lock_timeout", &value);
        }
        work()
    })
}

/// Runs `work`, which waits for locks while others may wait for it, so that it is never them who fail.
/// Of two that wait for each other it is this process that finds out first; and it gives up before
/// somebody does who began to wait for it later. That it has waited for so short a time is nothing to be
/// logged.
///
/// Not where it waits for a table: `VACUUM`, too, is asked to give way after a `deadlock_timeout`.
pub fn giving_way<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: reads a setting of this process.
    let others = unsafe { pg_sys::DeadlockTimeout };
    let limit = std::time::Duration::from_millis(u64::try_from(others).unwrap_or(0)) / 2;
    nested(|| {
        for (name, value) in [(c"deadlock_timeout", c"5ms"), (c"log_lock_waits", c"off")] {
            set_until_then(name, value, pg_sys::GucContext::PGC_SUSET);
        }
        with_lock_timeout(limit, work)
    })
}
