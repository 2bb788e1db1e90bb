//! Statements of ours that are the same each time, such as those on the catalogue: their plans are
//! kept for as long as the process lives. To parse and plan one costs many times what it costs to
//! run it.

use super::failure::Failure;
use super::prepared::{Prepared, with_newest_snapshot, with_snapshot_of_now};
use super::sql::{Arg, Row};
use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::rc::Rc;

thread_local! {
    /// By their texts. Never dropped: at the end of the process there is nobody left to give a plan
    /// back to.
    static PLANS: ManuallyDrop<RefCell<HashMap<String, Rc<Prepared>>>> = ManuallyDrop::default();
}

/// The plan of a statement, of which a trigger may have another run before this one is over.
fn plan(sql: &str) -> Rc<Prepared> {
    PLANS.with(|plans| {
        let mut plans = plans.borrow_mut();
        match plans.get(sql) {
            Some(plan) => Rc::clone(plan),
            None => Rc::clone(plans.entry(sql.into()).or_insert(Rc::new(Prepared::new(sql)))),
        }
    })
}

/// The rows of a query whose parameters are of the same types each time.
pub fn query<T>(
    sql: &str,
    args: &[Arg],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let plan = plan(sql);
    with_snapshot_of_now(|| plan.read(args, map))
}

/// The same as everybody would see it now, however old the snapshot of the transaction is.
pub fn query_newest<T>(
    sql: &str,
    args: &[Arg],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let plan = plan(sql);
    with_newest_snapshot(|| plan.read(args, map))
}

/// The same of a statement that locks or writes: how many rows it touched, and those it returned.
pub fn run<T>(
    sql: &str,
    args: &[Arg],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<(u64, Vec<T>), Failure> {
    let plan = plan(sql);
    with_snapshot_of_now(|| plan.write(args, map))
}
