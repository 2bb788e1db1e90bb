//! A `DELETE` along an index that ends after so many rows.
//!
//! A `DELETE` has no `LIMIT`, and to find beforehand where it has to end is a second walk over the
//! same entries. So PostgreSQL's own executor runs its own plan, and we stand between the two nodes
//! of it: the index scan says that there are no more rows once it has given so many. To the
//! `DELETE` that is a range which ends there, so all that belongs to one is done as ever: the
//! check of a row that was changed meanwhile, triggers of either kind, foreign keys.

use super::filter::only;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

/// What such a `DELETE` did.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// How many rows the scan gave.
    pub read: u64,
    /// How many of them went.
    pub reaped: u64,
    /// The index's first column of the row after them; `None`: there was none.
    pub next: Option<pg_sys::Datum>,
}

/// What stands between the scan and the `DELETE`.
struct Gate {
    scan: pg_sys::ExecProcNodeMtd,
    column: pg_sys::AttrNumber,
    most: u64,
    read: u64,
    next: Option<pg_sys::Datum>,
}

/// Runs the `DELETE` of `source`, whose plan is `cached`, with the active snapshot. `None`, and
/// nothing done: the plan is not one that can be ended so.
///
/// # Safety
/// In a transaction with an active snapshot; the plan is held; the arrays have a value, a type and
/// a mark (`n`: null) for each parameter of the statement.
pub unsafe fn delete(
    source: *const pg_sys::CachedPlanSource,
    cached: *const pg_sys::CachedPlan,
    (types, values, nulls): (*const pg_sys::Oid, *const pg_sys::Datum, *const c_char),
    most: u64,
) -> Option<Counted> {
    // SAFETY: as promised above. What the executor makes is in the memory of the query, and goes
    // with it, or with the transaction when an error is raised; the gate is on our stack, and
    // nobody comes to it but the node that runs in here.
    unsafe {
        let statement = only((*cached).stmt_list)?.cast::<pg_sys::PlannedStmt>();
        let column = ordered_by(statement.as_ref()?)?;
        let mut gate = Gate { scan: None, column, most, read: 0, next: None };
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
        // For a hook that is not set: the one place that is ours in what a node can reach.
        (*params).paramFetchArg = gate.cast();
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
        let scan = (*(*query).planstate).lefttree;
        (*gate).scan = (*scan).ExecProcNodeReal;
        pg_sys::ExecSetExecProcNode(scan, Some(pass_through));
        run(query);
        let reaped = (*(*query).estate).es_processed;
        pg_sys::ExecutorFinish(query);
        pg_sys::ExecutorEnd(query);
        pg_sys::FreeQueryDesc(query);
        pg_sys::CommandCounterIncrement();
        Some(Counted { read: (*gate).read, reaped, next: (*gate).next })
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

/// The next row of the scan, while there is room for it. The deadline of the first that has none
/// is taken down.
// SAFETY: only the executor calls it, for the node that it was set for. An error that is raised in
// the scan passes over this frame, which has nothing to drop.
unsafe extern "C-unwind" fn pass_through(
    node: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: `delete` has put the gate there, and is waiting for the executor. The row that a scan
    // is at is in its scan slot, whatever it makes of it for the node above.
    unsafe {
        let gate = (*(*(*node).state).es_param_list_info).paramFetchArg.cast::<Gate>();
        let Some(scan) = (*gate).scan else { return std::ptr::null_mut() };
        let row = scan(node);
        if row.is_null() || (*row).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
            return row;
        }
        if (*gate).read < (*gate).most {
            (*gate).read += 1;
            return row;
        }
        let at = (*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot;
        pg_sys::slot_getsomeattrs_int(at, c_int::from((*gate).column));
        (*gate).next = Some(*(*at).tts_values.add((*gate).column as usize - 1));
        std::ptr::null_mut()
    }
}

/// The column in whose order a statement deletes, if it is a `DELETE` along a range of one index, and
/// has no condition but that.
///
/// # Safety
/// The statement is planned, and its plan is held.
unsafe fn ordered_by(statement: &pg_sys::PlannedStmt) -> Option<pg_sys::AttrNumber> {
    // SAFETY: a node is what its tag says; the index is there as long as the plan is.
    unsafe {
        let top = statement.planTree.cast();
        let delete = node::<pg_sys::ModifyTable>(top, pg_sys::NodeTag::T_ModifyTable)?;
        let below = delete.plan.lefttree.cast();
        let scan = node::<pg_sys::IndexScan>(below, pg_sys::NodeTag::T_IndexScan)?;
        // Rows that another condition leaves out are read as well, and would not be counted.
        let so_many = delete.operation == pg_sys::CmdType::CMD_DELETE
            && scan.scan.plan.qual.is_null()
            && on_first_column(scan.indexqual);
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
