//! The filter of a policy: analysed once, as the predicate of an index would be, and kept as
//! PostgreSQL spells it out, with every name in it qualified.

use super::encoding::{decode, encode};
use super::failure::Failure;
use super::sandbox::{Restriction, as_owner, set_path, with_plain_input, with_plain_output};
use super::target::THE_ROW;
use super::transaction::in_subtransaction;
use crate::decide::refusal::Refusal;
use pgrx::{is_a, pg_sys};
use std::ffi::CStr;

/// What the names in a filter are looked up by.
pub enum Names<'a> {
    /// The `search_path` of whoever wrote it.
    Path(&'a CStr),
    /// It was spelt out already.
    Qualified,
}

/// Spells out `filter` of the table `relation`, called `name`, as its owner; or says why it does
/// not qualify. The table is locked already.
pub fn spelt_out(
    relation: pg_sys::Oid,
    name: &str,
    owner: pg_sys::Oid,
    filter: &str,
    names: Names,
) -> Result<String, Failure> {
    let expression = analysed(relation, name, owner, filter, names)?;
    // Under the pinned path, so that whatever is not PostgreSQL's own is qualified.
    with_plain_output(|| {
        // SAFETY: the tree was made in this memory context; a palloc'd string comes back.
        let text = unsafe {
            let context = pg_sys::deparse_context_for(c"t".as_ptr(), relation);
            CStr::from_ptr(pg_sys::deparse_expression(expression, context, false, false))
        };
        Ok(decode(text))
    })
}

/// `filter` as PostgreSQL understands it now, as its owner; or why it does not qualify.
pub fn analysed(
    relation: pg_sys::Oid,
    name: &str,
    owner: pg_sys::Oid,
    filter: &str,
    names: Names,
) -> Result<*mut pg_sys::Node, Failure> {
    let analysed = in_subtransaction(|| {
        as_owner(owner, Restriction::Full, || match names {
            Names::Path(path) => {
                set_path(path);
                let expression = analyse(relation, filter, None)?;
                check(expression)?;
                Ok(expression)
            }
            // What was kept is taken as it is: a sweep does not ask either.
            Names::Qualified => with_plain_input(|| analyse(relation, filter, Some(THE_ROW))),
        })
    });
    analysed.map_err(|mut failure| {
        if failure.is_cancel() || failure.is_lock() {
            return failure;
        }
        // What the parser takes it for.
        failure.message = failure.message.replace("index predicate", "filter");
        failure.of(&format!("filter of table {name} cannot be used"), HINT)
    })
}

const HINT: &str = "A filter is one boolean expression over the table's own columns, of immutable \
                    functions, without subqueries.";

fn not_one_expression() -> Failure {
    Refusal::BadFilter { why: "it is not one expression".into() }.into()
}

/// The expression that `filter` is, over the columns of `relation`, which goes by another name if one is
/// given.
fn analyse(
    relation: pg_sys::Oid,
    filter: &str,
    called: Option<&CStr>,
) -> Result<*mut pg_sys::Node, Failure> {
    // The line break ends a comment at the end of it.
    let statement = encode(&format!("SELECT ({filter}\n)"));
    // SAFETY: the parser's trees live in the current memory context; all that it raises is
    // contained by the subtransaction around, which also closes the relation.
    unsafe {
        let parsed =
            pg_sys::raw_parser(statement.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let value = only_value(parsed).ok_or_else(not_one_expression)?;
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        let open = pg_sys::table_open(relation, pg_sys::AccessShareLock as _);
        let item = pg_sys::addRangeTableEntryForRelation(
            state,
            open,
            pg_sys::AccessShareLock as _,
            called.map_or(std::ptr::null_mut(), |name| {
                pg_sys::makeAlias(name.as_ptr(), std::ptr::null_mut())
            }),
            false,
            true,
        );
        pg_sys::addNSItemToQuery(state, item, false, true, true);
        let kind = pg_sys::ParseExprKind::EXPR_KIND_INDEX_PREDICATE;
        let expression = pg_sys::transformExpr(state, value, kind);
        let expression = pg_sys::coerce_to_boolean(state, expression, c"WHERE".as_ptr());
        pg_sys::assign_expr_collations(state, expression);
        pg_sys::table_close(open, pg_sys::NoLock as _);
        Ok(expression)
    }
}

/// The value of a parsed `SELECT (…)`, if it is nothing but that.
///
/// # Safety
/// `parsed` is what the parser returned.
unsafe fn only_value(parsed: *mut pg_sys::List) -> Option<*mut pg_sys::Node> {
    // SAFETY: every node is looked at as what its tag says it is.
    unsafe {
        let raw: *mut pg_sys::RawStmt = only(parsed)?.cast();
        let statement = (*raw).stmt;
        if !is_a(statement, pg_sys::NodeTag::T_SelectStmt) {
            return None;
        }
        let select = &*statement.cast::<pg_sys::SelectStmt>();
        let more = [
            select.distinctClause,
            select.fromClause,
            select.groupClause,
            select.windowClause,
            select.valuesLists,
            select.sortClause,
            select.lockingClause,
        ];
        let others = [
            select.whereClause,
            select.havingClause,
            select.limitOffset,
            select.limitCount,
            select.intoClause.cast(),
            select.withClause.cast(),
        ];
        if more.iter().any(|list| !list.is_null())
            || others.iter().any(|node| !node.is_null())
            || select.op != pg_sys::SetOperation::SETOP_NONE
        {
            return None;
        }
        let target: *mut pg_sys::ResTarget = only(select.targetList)?.cast();
        let plain = (*target).name.is_null() && (*target).indirection.is_null();
        plain.then_some((*target).val)
    }
}

/// The one element of a list of nodes.
///
/// # Safety
/// `list` is null or a list of pointers.
pub unsafe fn only(list: *const pg_sys::List) -> Option<*mut std::ffi::c_void> {
    // SAFETY: a list has as many elements as it says.
    unsafe { (!list.is_null() && (*list).length == 1).then(|| (*(*list).elements).ptr_value) }
}

/// What the parser lets through and an index predicate must not have either.
fn check(expression: *mut pg_sys::Node) -> Result<(), Failure> {
    // SAFETY: it is what `analyse` made, an expression over one table. The planner is given the tree itself, which it copies
    // what it changes of.
    unsafe {
        let planned = pg_sys::expression_planner(expression.cast());
        if pg_sys::contain_mutable_functions(planned.cast()) {
            let why = "its functions must be immutable";
            return Err(Refusal::BadFilter { why: why.into() }.into());
        }
        let mut columns: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(expression, 1, &mut columns);
        let first = pg_sys::bms_next_member(columns, -1);
        if first >= 0 && first + pg_sys::FirstLowInvalidHeapAttributeNumber <= 0 {
            let why = "it names a system column or the whole row";
            return Err(Refusal::BadFilter { why: why.into() }.into());
        }
    }
    Ok(())
}
