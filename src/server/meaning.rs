//! What the words of a policy stand for now: see [`crate::decide::meaning`].

use super::changes;
use super::encoding::{decode, encode};
use super::failure::Failure;
use super::filter::{self, Names};
use super::prepared;
use super::target::{Given, Target};
use crate::decide::fault::{Fault, fault};
use crate::decide::meaning::{Kept, Meaning, Origin, Words};
use crate::decide::refusal::Refusal;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

// SAFETY: as PostgreSQL's common/hashfn.h declares it, which pgrx does not bind.
unsafe extern "C" {
    fn hash_bytes_extended(bytes: *const u8, len: c_int, seed: u64) -> u64;
}

/// What the words of a policy stand for, read from `relation`, called `name`: the watched table or,
/// locked, a leaf of it, whose columns cannot be renamed then, nor those of the watched table by the same
/// names.
pub fn of(
    relation: pg_sys::Oid,
    name: &str,
    owner: pg_sys::Oid,
    given: &Given,
    filter: Option<&str>,
) -> Result<Meaning, Failure> {
    let column = encode(&given.column);
    // SAFETY: reads a variable of the server, and looks into the catalogue, in a transaction.
    let (system, column) =
        unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::get_attnum(given.root, column.as_ptr())) };
    if column <= 0 {
        let (relation, column) = (name.to_owned(), given.column.clone());
        return Err(Refusal::NoDeadline { relation, column }.into());
    }
    let digest = |filter| digest(relation, name, owner, given.root, filter);
    Ok(Meaning {
        origin: Origin { system, relation: given.root.to_u32() },
        column,
        filter: filter.map(digest).transpose()?,
    })
}

/// Makes sure that the words of the policy of `target`, whose table is locked, stand for what they
/// stood for when they were given. It is looked at again only when the catalogue may have changed.
pub fn see_that_it_stands(target: &Target) -> Result<(), Failure> {
    let Ok(watched) = &target.watched else { return Ok(()) };
    let Some(given) = &watched.given else { return Ok(()) };
    let filter = watched.filter.as_deref();
    // Before anything is read.
    let changes = Some(changes::so_far());
    if target.reading.understood_at.get() == changes {
        return Ok(());
    }
    let now = of(target.relation, &target.name, target.owner, given, filter)?;
    let kept = given.meaning.as_deref().and_then(Kept::read);
    let held_to = Kept::held_to(kept, now);
    if kept != Some(held_to) {
        target.reading.to_keep.set(Some(held_to));
    }
    if held_to.lost != Words::NONE {
        // One may have been made for what the words stand for now, and would outlast it.
        prepared::plan_anew();
        return Err(lost(held_to.lost, target.policy, &target.name, given, filter).into());
    }
    target.reading.understood_at.set(changes);
    Ok(())
}

/// The same at the end of a batch: names can change hands while it runs, but not columns.
pub fn see_that_it_still_stands(target: &Target) -> Result<(), Failure> {
    // SAFETY: within a transaction; takes note of what others have committed.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    see_that_it_stands(target)
}

/// That words of a policy stand for something else than when they were given.
pub fn lost(
    words: Words,
    policy: i64,
    relation: &str,
    given: &Given,
    filter: Option<&str>,
) -> Refusal {
    let relation = relation.to_owned();
    let column = given.column.clone();
    match words.column {
        true => Refusal::AnotherColumn { policy, relation, column, filter: words.filter },
        false => {
            let filter = filter.unwrap_or_default().to_owned();
            Refusal::AnotherFilter { policy, relation, filter }
        }
    }
}

/// A digest of `filter` over `relation` with all names resolved, columns as those of `root` that have
/// the same names: of the tree that PostgreSQL would keep for an index. Two that differ mean different
/// things; the same filter has the same digest as long as nothing that it names has changed. The hash
/// is PostgreSQL's own, of 64 bits.
fn digest(
    relation: pg_sys::Oid,
    name: &str,
    owner: pg_sys::Oid,
    root: pg_sys::Oid,
    filter: &str,
) -> Result<u64, Failure> {
    let expression =
        filter::analysed(relation, name, owner, filter, Names::Qualified).map_err(of_the_table)?;
    // SAFETY: the tree is in this memory context, as is what is made of it; the string is
    // NUL-terminated.
    let tree = unsafe {
        let expression = with_columns_of(expression, relation, root)?;
        CStr::from_ptr(pg_sys::nodeToString(expression.cast())).to_bytes()
    };
    let tree = essence(tree);
    // SAFETY: reads as many bytes as there are.
    Ok(unsafe { hash_bytes_extended(tree.as_ptr(), tree.len() as c_int, 0) })
}

/// No row is to blame for a filter that cannot be read: a label that an enumeration has no more raises
/// what a row with such a text would.
fn of_the_table(failure: Failure) -> Failure {
    match fault(&failure.sqlstate()) {
        Fault::Row => Refusal::BadFilter { why: failure.message }.into(),
        _ => failure,
    }
}

/// `expression` over `relation` as one over `root`.
///
/// # Safety
/// `expression` is one that was analysed over `relation`.
unsafe fn with_columns_of(
    expression: *mut pg_sys::Node,
    relation: pg_sys::Oid,
    root: pg_sys::Oid,
) -> Result<*mut pg_sys::Node, Failure> {
    if relation == root {
        return Ok(expression);
    }
    // SAFETY: the map has room for each column that the expression names, and a filter names no
    // system column and not the whole row.
    unsafe {
        let mut columns: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(expression, 1, &raw mut columns);
        let least = pg_sys::FirstLowInvalidHeapAttributeNumber;
        let last = pg_sys::bms_prev_member(columns, -1) + least;
        if last <= 0 {
            return Ok(expression);
        }
        let map = pg_sys::make_attrmap(last);
        for column in 1..=last {
            if !pg_sys::bms_is_member(column - least, columns) {
                continue;
            }
            let called = pg_sys::get_attname(relation, column as i16, false);
            let found = pg_sys::get_attnum(root, called);
            if found <= 0 {
                let column = decode(CStr::from_ptr(called));
                let why = format!("the watched table has no column \"{column}\"");
                return Err(Refusal::BadFilter { why }.into());
            }
            *(*map).attnums.add(column as usize - 1) = found;
        }
        let (row, mut whole_row) = (pg_sys::InvalidOid, false);
        Ok(pg_sys::map_variable_attnos(expression, 1, 0, map, row, &raw mut whole_row))
    }
}

/// A tree without what it means the same without: where in the text each node stood, which newer versions
/// do not write anyway, and how long the values of a column may be.
fn essence(tree: &[u8]) -> Vec<u8> {
    const LEFT_OUT: [&[u8]; 2] = [b":location ", b":vartypmod "];
    let mut rest = tree;
    let mut kept = Vec::with_capacity(tree.len());
    while let Some((&first, after)) = rest.split_first() {
        match LEFT_OUT.iter().find_map(|field| rest.strip_prefix(*field)) {
            // A name in the tree has its blanks escaped, so this is no name.
            Some(number) => {
                let is_part = |byte: &u8| *byte == b'-' || byte.is_ascii_digit();
                let end = number.iter().position(|byte| !is_part(byte)).unwrap_or(number.len());
                rest = &number[end..];
            }
            None => {
                kept.push(first);
                rest = after;
            }
        }
    }
    kept
}
