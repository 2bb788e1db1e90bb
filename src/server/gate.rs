//! What stands between the scan and the `DELETE` of a plan.
//!
//! A `DELETE` has no `LIMIT`, and to find beforehand where it has to end is a second walk over the
//! same entries. So the gate says that there are no more rows once the scan has given so many. To the
//! `DELETE` that is a range which ends there, so all that belongs to one is done as ever: the check of
//! a row that was changed meanwhile, triggers of either kind, foreign keys.
//!
//! Where nobody else has a say in what becomes of a row, as most tables have no trigger on that, the gate
//! does the one thing that the `DELETE` would do, without the way up to it and back: that is some 8 % of
//! the time. Who may delete, and whether it is allowed at all, was looked at when the statement
//! started. A row that was changed meanwhile goes up as ever.

use pgrx::pg_sys;
use std::ffi::c_int;

// SAFETY: as executor/tuptable.h declares them. Not by pgrx, which turns an error into a panic: what is
// raised in the gate is to pass over it as it does over the executor's own frames.
unsafe extern "C-unwind" {
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attnum: c_int);
    fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
}

/// Where the scan seems to end.
pub struct Limit {
    /// The column that the scan goes along.
    pub column: pg_sys::AttrNumber,
    /// After so many rows.
    pub most: u64,
}

/// The gate of one statement that runs.
pub struct Gate {
    scan: pg_sys::ExecProcNodeMtd,
    limit: Option<Limit>,
    /// How many rows came.
    pub read: u64,
    /// The column of the limit, of the first row that came too late; `None`: there was none.
    pub next: Option<pg_sys::Datum>,
    /// `None`: every row is handed up.
    here: Option<Here>,
}

/// How rows go right at the gate.
#[derive(Clone, Copy)]
struct Here {
    table: pg_sys::Relation,
    delete: TupleDelete,
    /// What the scan would make of its rows for the `DELETE`; null: it hands them up as they are.
    projection: *mut pg_sys::ProjectionInfo,
}

/// As PostgreSQL's access/tableam.h declares it.
type TupleDelete = unsafe extern "C-unwind" fn(
    pg_sys::Relation,
    pg_sys::ItemPointer,
    pg_sys::CommandId,
    pg_sys::Snapshot,
    pg_sys::Snapshot,
    bool,
    *mut pg_sys::TM_FailureData,
    bool,
) -> pg_sys::TM_Result::Type;

impl Gate {
    pub fn new(limit: Option<Limit>) -> Gate {
        Gate { scan: None, limit, read: 0, next: None, here: None }
    }

    /// Has the nodes of a statement with these parameters find it. They keep a place for a hook, which
    /// is not set: the one that is ours in what a node can reach.
    ///
    /// # Safety
    /// The parameters were made by `makeParamList`, and the gate outlives the statement.
    pub unsafe fn give(gate: *mut Gate, params: pg_sys::ParamListInfo) {
        // SAFETY: as the caller promises.
        unsafe { (*params).paramFetchArg = gate.cast() };
    }

    /// Puts it below the `DELETE`, between it and its scan.
    ///
    /// # Safety
    /// The statement has the gate, was started, and nothing of it has run yet.
    pub unsafe fn stand_below(gate: *mut Gate, delete: *mut pg_sys::ModifyTableState) {
        // SAFETY: as the caller promises.
        unsafe {
            let scan = (*delete).ps.lefttree;
            (*gate).scan = (*scan).ExecProcNodeReal;
            (*gate).here = here(delete, scan);
            pg_sys::ExecSetExecProcNode(scan, Some(pass_through));
        }
    }
}

/// How the rows that `scan` gives to `delete` can go at the gate; `None`: somebody else has a say in it.
/// From here on the scan makes nothing of its rows.
///
/// # Safety
/// Both have been started and nothing was run yet.
unsafe fn here(
    delete: *mut pg_sys::ModifyTableState,
    scan: *mut pg_sys::PlanState,
) -> Option<Here> {
    // SAFETY: as the caller promises. A `DELETE` has one table at least.
    unsafe {
        let of = &*(*delete).resultRelInfo;
        // Those of a table that only refers to others are about what comes in.
        let triggered = of.ri_TrigDesc.as_ref().is_some_and(|all| {
            all.trig_delete_before_row || all.trig_delete_after_row || all.trig_delete_instead_row
        });
        let alone = (*delete).mt_nrels == 1
            && (*delete).mt_transition_capture.is_null()
            && of.ri_FdwRoutine.is_null()
            && of.ri_projectReturning.is_null()
            // Somebody counts what goes up.
            && (*scan).instrument.is_null();
        if triggered || !alone {
            return None;
        }
        let table = of.ri_RelationDesc;
        let delete = (*(*table).rd_tableam).tuple_delete?;
        let projection = std::mem::replace(&mut (*scan).ps_ProjInfo, std::ptr::null_mut());
        Some(Here { table, delete, projection })
    }
}

/// The next row of the scan that the `DELETE` has to see, while there is room for it. The deadline of
/// the first that has none is taken down.
// SAFETY: only the executor calls it, for the node that it was set for. An error that is raised in
// here passes over this frame, which has nothing to drop.
unsafe extern "C-unwind" fn pass_through(
    node: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the gate was given to the statement, and outlives it. The row that a scan is at is in its
    // scan slot, whatever it makes of it for the node above.
    unsafe {
        let state = (*node).state;
        let gate = (*(*state).es_param_list_info).paramFetchArg.cast::<Gate>();
        let Some(scan) = (*gate).scan else { return std::ptr::null_mut() };
        loop {
            let row = scan(node);
            if row.is_null() || (*row).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                return row;
            }
            let at = (*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot;
            if let Some(limit) = &(*gate).limit
                && (*gate).read == limit.most
            {
                slot_getsomeattrs_int(at, c_int::from(limit.column));
                (*gate).next = Some(*(*at).tts_values.add(limit.column as usize - 1));
                return std::ptr::null_mut();
            }
            (*gate).read += 1;
            let Some(here) = (*gate).here else { return row };
            if !went(&here, at, state) {
                return projected(here.projection, at);
            }
        }
    }
}

/// Deletes the row as the `DELETE` would, and counts it; whether that was all there was to do.
///
/// # Safety
/// `row` was read from the table by the snapshot of `state`.
unsafe fn went(here: &Here, row: *mut pg_sys::TupleTableSlot, state: *mut pg_sys::EState) -> bool {
    let mut why = std::mem::MaybeUninit::uninit();
    // SAFETY: as the caller promises.
    let mut tid = unsafe { (*row).tts_tid };
    // SAFETY: what `ExecDelete` calls, with what it passes. Why a row did not go is written where
    // there is room for it.
    unsafe {
        let outcome = (here.delete)(
            here.table,
            &raw mut tid,
            (*state).es_output_cid,
            (*state).es_snapshot,
            (*state).es_crosscheck_snapshot,
            true,
            why.as_mut_ptr(),
            false,
        );
        let ok = outcome == pg_sys::TM_Result::TM_Ok;
        (*state).es_processed += u64::from(ok);
        ok
    }
}

/// What the scan would have made of `row`: `ExecProject`, which is inlined in PostgreSQL.
///
/// # Safety
/// The projection is that of the scan, or null, and `row` is its scan slot.
unsafe fn projected(
    projection: *mut pg_sys::ProjectionInfo,
    row: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as the caller promises.
    unsafe {
        if projection.is_null() {
            return row;
        }
        let context = (*projection).pi_exprContext;
        let state = &raw mut (*projection).pi_state;
        let slot = (*state).resultslot;
        let (Some(clear), Some(evaluate)) = ((*(*slot).tts_ops).clear, (*state).evalfunc) else {
            return std::ptr::null_mut();
        };
        (*context).ecxt_scantuple = row;
        clear(slot);
        let mut null = false;
        let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        evaluate(state, context, &raw mut null);
        pg_sys::MemoryContextSwitchTo(before);
        ExecStoreVirtualTuple(slot)
    }
}
