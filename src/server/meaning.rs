//! What the words of a policy stand for now: see [`crate::decide::meaning`].

use super::changes;
use super::encoding::encode;
use super::failure::Failure;
use super::filter;
use super::target::{Target, Words};
use crate::decide::fault::{Fault, fault};
use crate::decide::meaning::{Meaning, Origin, Word};
use crate::decide::refusal::Refusal;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

// SAFETY: as PostgreSQL's common/hashfn.h declares it, which pgrx does not bind.
unsafe extern "C" {
    fn hash_bytes_extended(bytes: *const u8, len: c_int, seed: u64) -> u64;
}

/// What the words of a policy stand for, read from `relation`: the watched table or, locked, a leaf
/// of it, whose columns cannot be renamed then, nor those of the watched table by the same names.
pub fn of(
    relation: pg_sys::Oid,
    owner: pg_sys::Oid,
    words: &Words,
    filter: Option<&str>,
) -> Result<Meaning, Failure> {
    let column = encode(&words.column);
    // SAFETY: reads a variable of the server, and looks into the catalogue, in a transaction.
    let (system, column) =
        unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::get_attnum(words.root, column.as_ptr())) };
    let digest = |filter| digest(relation, owner, words.root, filter);
    Ok(Meaning {
        origin: Origin { system, relation: words.root.to_u32() },
        column,
        filter: filter.map(digest).transpose()?,
    })
}

/// Makes sure that the words of the policy of `target`, whose table is locked, stand for what they
/// stood for when they were given. It is looked at again only when the catalogue may have changed.
pub fn see_that_it_stands(target: &Target) -> Result<(), Failure> {
    let Ok(watched) = &target.watched else { return Ok(()) };
    let Some(words) = &watched.words else { return Ok(()) };
    let filter = watched.filter.as_deref();
    // Before anything is read.
    let changes = Some(changes::so_far());
    if target.reading.understood_at.get() == changes {
        return Ok(());
    }
    let now = of(target.relation, target.owner, words, filter)?;
    let kept = words.meaning.as_deref().and_then(Meaning::kept);
    if let Some(word) = kept.and_then(|kept| kept.lost(&now)) {
        return Err(lost(word, target.policy, &target.name, words, filter).into());
    }
    if !kept.is_some_and(|kept| kept.tells_of(&now)) {
        target.reading.to_keep.set(Some(now));
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

/// That `word` of a policy stands for something else than when it was given.
pub fn lost(
    word: Word,
    policy: i64,
    relation: &str,
    words: &Words,
    filter: Option<&str>,
) -> Refusal {
    let relation = relation.to_owned();
    match word {
        Word::Column => Refusal::AnotherColumn { policy, relation, column: words.column.clone() },
        Word::Filter => {
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
    owner: pg_sys::Oid,
    root: pg_sys::Oid,
    filter: &str,
) -> Result<u64, Failure> {
    let expression = filter::analysed(relation, owner, filter).map_err(of_the_table)?;
    // SAFETY: the tree is in this memory context, as is what is made of it; the string is
    // NUL-terminated.
    let tree = unsafe {
        let expression = with_columns_of(expression, relation, root);
        CStr::from_ptr(pg_sys::nodeToString(expression.cast())).to_bytes()
    };
    let tree = without_locations(tree);
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
) -> *mut pg_sys::Node {
    if relation == root {
        return expression;
    }
    // SAFETY: the map has room for each column that the expression names, and a filter names no
    // system column and not the whole row.
    unsafe {
        let mut columns: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(expression, 1, &raw mut columns);
        let least = pg_sys::FirstLowInvalidHeapAttributeNumber;
        let last = pg_sys::bms_prev_member(columns, -1) + least;
        if last <= 0 {
            return expression;
        }
        let map = pg_sys::make_attrmap(last);
        for column in 1..=last {
            let name = pg_sys::get_attname(relation, column as i16, true);
            let found = if name.is_null() { 0 } else { pg_sys::get_attnum(root, name) };
            // One that only the leaf has is none that the filter was given for.
            *(*map).attnums.add(column as usize - 1) = if found > 0 { found } else { i16::MAX };
        }
        let mut whole_row = false;
        pg_sys::map_variable_attnos(expression, 1, 0, map, pg_sys::InvalidOid, &raw mut whole_row)
    }
}

/// A tree without what tells where in the text each node stood, as newer versions write it anyway.
fn without_locations(tree: &[u8]) -> Vec<u8> {
    const LOCATION: &[u8] = b":location ";
    let mut rest = tree;
    let mut kept = Vec::with_capacity(tree.len());
    while let Some((&first, after)) = rest.split_first() {
        match rest.strip_prefix(LOCATION) {
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
