//! A `DELETE` of ours, run by PostgreSQL's own executor with a gate between the two nodes of its plan:
//! see [`super::gate`]. Along an index it can end after so many rows.

use super::filter::only;
use super::gate::{Gate, Limit};
use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

/// What such a `DELETE` did.
#[derive(Clone, Copy, Debug)]
pub struct Deleted {
    /// How many rows the scan gave.
    pub read: u64,
    /// How many of them went.
    pub reaped: u64,
    /// The index's first column of the row after them; `None`: there was none.
    pub next: Option<pg_sys::Datum>,
}

/// Runs the `DELETE` of `source`, whose plan is `cached`, with the active snapshot; up to `most` rows
/// in the order of an index. `None`, and nothing done: the plan is not one that can be run so.
///
/// # Safety
/// In a transaction with an active snapshot; the plan is held; the arrays have a value, a type and
/// a mark (`n`: null) for each parameter of the statement.
pub unsafe fn delete(
    source: *const pg_sys::CachedPlanSource,
    cached: *const pg_sys::CachedPlan,
    (types, values, nulls): (*const pg_sys::Oid, *const pg_sys::Datum, *const c_char),
    most: Option<u64>,
) -> Option<Deleted> {
    // SAFETY: as promised above. What the executor makes is in the memory of the query, and goes
    // with it, or with the transaction when an error is raised; the gate is on our stack, and
    // nobody comes to it but the node that runs in here.
    unsafe {
        let statement = only((*cached).stmt_list)?.cast::<pg_sys::PlannedStmt>();
        let scan = scan_below(statement.as_ref()?)?;
        let limit = match most {
            Some(most) => Some(Limit { column: ordered_by(scan)?, most }),
            None => None,
        };
        let mut gate = Gate::new(limit);
        let gate = &raw mut gate;
        let params = pg_sys::makeParamList((*source).num_params);
        for n in 0..(*source).num_params as usize {
            *(*params).params.as_mut_ptr().add(n) = pg_sys::ParamExternData {
                value: *values.add(n),
                isnull: *nulls.add(n) == b'n' as c_char,
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: *types.add(n),
            };
        }
        Gate::give(gate, params);
        let query = pg_sys::CreateQueryDesc(
            statement,
            (*source).query_string,
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            pg_sys::None_Receiver,
            params,
            std::ptr::null_mut(),
            0,
        );
        pg_sys::ExecutorStart(query, 0);
        Gate::stand_below(gate, (*query).planstate.cast());
        run(query);
        let reaped = (*(*query).estate).es_processed;
        pg_sys::ExecutorFinish(query);
        pg_sys::ExecutorEnd(query);
        pg_sys::FreeQueryDesc(query);
        pg_sys::CommandCounterIncrement();
        Some(Deleted { read: (*gate).read, reaped, next: (*gate).next })
    }
}

/// Runs a query to its end.
///
/// # Safety
/// It has been started.
unsafe fn run(query: *mut pg_sys::QueryDesc) {
    let forward = pg_sys::ScanDirection::ForwardScanDirection;
    // SAFETY: started by the caller.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::ExecutorRun(query, forward, 0);
        #[cfg(not(feature = "pg18"))]
        pg_sys::ExecutorRun(query, forward, 0, true);
    }
}

/// The scan that gives a `DELETE` its rows, if that is all the statement is and the scan is of a kind
/// that a gate can stand above.
///
/// # Safety
/// The statement is planned, and its plan is held.
unsafe fn scan_below(statement: &pg_sys::PlannedStmt) -> Option<*const pg_sys::Node> {
    // SAFETY: a node is what its tag says.
    unsafe {
        let top = statement.planTree.cast();
        let delete = node::<pg_sys::ModifyTable>(top, pg_sys::NodeTag::T_ModifyTable)?;
        let scan = delete.plan.lefttree.cast::<pg_sys::Node>().as_ref()?;
        let known = [pg_sys::NodeTag::T_IndexScan, pg_sys::NodeTag::T_TidScan];
        let gives = delete.operation == pg_sys::CmdType::CMD_DELETE && known.contains(&scan.type_);
        gives.then_some(std::ptr::from_ref(scan))
    }
}

/// The column in whose order a scan gives its rows, if it goes along a range of one index, and has no
/// condition but that.
///
/// # Safety
/// The scan is of a plan that is held.
unsafe fn ordered_by(scan: *const pg_sys::Node) -> Option<pg_sys::AttrNumber> {
    // SAFETY: a node is what its tag says; the index is there as long as the plan is.
    unsafe {
        let scan = node::<pg_sys::IndexScan>(scan, pg_sys::NodeTag::T_IndexScan)?;
        // Rows that another condition leaves out are read as well, and would not be counted.
        let so_many = scan.scan.plan.qual.is_null() && on_first_column(scan.indexqual);
        if !so_many || scan.indexorderdir != pg_sys::ScanDirection::ForwardScanDirection {
            return None;
        }
        let index = pg_sys::index_open(scan.indexid, pg_sys::AccessShareLock as _);
        let column = column_in_order(index);
        pg_sys::index_close(index, pg_sys::NoLock as _);
        column
    }
}

/// The first column of an index, if it goes from the earliest to the latest.
///
/// # Safety
/// The index is open.
unsafe fn column_in_order(index: pg_sys::Relation) -> Option<pg_sys::AttrNumber> {
    // SAFETY: the index is open, and has a column at least.
    unsafe {
        // In another family, or another kind of index, the order need not be that of time.
        let flags = pg_sys::TYPECACHE_BTREE_OPFAMILY as c_int;
        let family = (*pg_sys::lookup_type_cache(*(*index).rd_opcintype, flags)).btree_opf;
        let ascends = *(*index).rd_indoption & pg_sys::INDOPTION_DESC as i16 == 0;
        let column = *(*(*index).rd_index).indkey.values.as_ptr();
        // No number: an expression, though it may be as good as a column.
        (column > 0 && *(*index).rd_opfamily == family && ascends).then_some(column)
    }
}

/// Whether all conditions of an index scan are on the first column of the index, as
/// `column >= $1`.
///
/// # Safety
/// They are those of an index scan in a plan that is held.
unsafe fn on_first_column(conditions: *mut pg_sys::List) -> bool {
    // SAFETY: a list of conditions, each an expression; one with an operator has its column first.
    unsafe {
        let Some(conditions) = conditions.as_ref() else { return false };
        (0..conditions.length as usize).all(|n| {
            let condition = (*conditions.elements.add(n)).ptr_value.cast();
            node::<pg_sys::OpExpr>(condition, pg_sys::NodeTag::T_OpExpr)
                .and_then(|condition| condition.args.as_ref())
                .filter(|args| args.length == 2)
                .and_then(|args| {
                    let column = (*args.elements).ptr_value.cast();
                    node::<pg_sys::Var>(column, pg_sys::NodeTag::T_Var)
                })
                .is_some_and(|column| column.varno == pg_sys::INDEX_VAR && column.varattno == 1)
        })
    }
}

/// The node, if it is one of this kind.
///
/// # Safety
/// Null, or a node that stays; `T` is what nodes of that kind are.
unsafe fn node<'a, T>(node: *const pg_sys::Node, tag: pg_sys::NodeTag) -> Option<&'a T> {
    // SAFETY: null, or a node of any kind.
    unsafe { node.as_ref().filter(|node| node.type_ == tag).map(|_| &*node.cast::<T>()) }
}
