//! Running SQL with parameters, its rows as Rust values.
//!
//! pgrx's SPI client takes a transaction id even for a SELECT; this one leaves that to the
//! statement, so that an idle cycle writes nothing.

use super::encoding::{decode, encode};
use super::errcode::Watch;
use super::failure::Failure;
use crate::decide::ServerTime;
use crate::decide::deadline::{ColumnType, day_of_key, key_of_day};
use pgrx::{IntoDatum, pg_sys};
use std::ffi::{CStr, c_char, c_int, c_long};

/// The statement of a template: without the comments at its head, which would fill the CONTEXT of
/// every error.
pub fn statement(template: &str) -> String {
    let lines: Vec<_> = template.lines().filter(|line| !line.starts_with("--")).collect();
    lines.join("\n")
}

/// The statement of a template, each `@name@` in it replaced by what it stands for, once: what is
/// put in is not looked through.
pub fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let template = statement(template);
    let mut parts = template.split('@');
    let mut out = parts.next().unwrap_or_default().to_owned();
    while let Some(name) = parts.next() {
        let value = values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        out += value.unwrap_or_default();
        out += parts.next().unwrap_or_default();
    }
    out
}

/// A parameter.
#[derive(Clone)]
pub enum Arg<'a> {
    Text(&'a str),
    Int8(i64),
    Oid(pg_sys::Oid),
    Time(ServerTime),
    /// A key of a column of this type.
    Key(ColumnType, ServerTime),
    Tid(pg_sys::ItemPointerData),
    Tids(&'a [pg_sys::ItemPointerData]),
    /// A value of this type, as a caller gave it.
    Raw(pg_sys::Oid, Option<pg_sys::Datum>),
}

impl Arg<'_> {
    fn type_oid(&self) -> pg_sys::Oid {
        match self {
            Arg::Text(_) => pg_sys::TEXTOID,
            Arg::Int8(_) => pg_sys::INT8OID,
            Arg::Oid(_) => pg_sys::OIDOID,
            Arg::Time(_) | Arg::Key(ColumnType::Timestamptz, _) => pg_sys::TIMESTAMPTZOID,
            Arg::Key(ColumnType::Timestamp, _) => pg_sys::TIMESTAMPOID,
            Arg::Key(ColumnType::Date, _) => pg_sys::DATEOID,
            Arg::Tid(_) => pg_sys::TIDOID,
            Arg::Tids(_) => pg_sys::TIDARRAYOID,
            Arg::Raw(type_oid, _) => *type_oid,
        }
    }

    /// Its value, borrowed from `self` where it is passed by reference.
    fn datum(&self) -> Option<pg_sys::Datum> {
        match self {
            Arg::Text(text) => {
                // SAFETY: copies the string into memory of its own.
                let copy = unsafe { pg_sys::cstring_to_text(encode(text).as_ptr()) };
                Some(pg_sys::Datum::from(copy))
            }
            Arg::Int8(number) => number.into_datum(),
            Arg::Oid(oid) => oid.into_datum(),
            Arg::Key(ColumnType::Date, key) => day_of_key(*key).into_datum(),
            Arg::Time(time) | Arg::Key(_, time) => time.into_datum(),
            Arg::Tid(tid) => Some(pg_sys::Datum::from(std::ptr::from_ref(tid))),
            Arg::Tids(tids) => Some(tid_array(tids)),
            Arg::Raw(_, value) => *value,
        }
    }
}

fn tid_array(tids: &[pg_sys::ItemPointerData]) -> pg_sys::Datum {
    let mut elements: Vec<_> =
        tids.iter().map(|tid| pg_sys::Datum::from(std::ptr::from_ref(tid))).collect();
    // SAFETY: the elements point into `tids`, which outlives the call; construct_array copies
    // them. A tid is six bytes, by reference, aligned to two.
    unsafe {
        let array = pg_sys::construct_array(
            elements.as_mut_ptr(),
            elements.len() as c_int,
            pg_sys::TIDOID,
            size_of::<pg_sys::ItemPointerData>() as c_int,
            false,
            b's' as _,
        );
        pg_sys::Datum::from(array)
    }
}

/// One row of a result. Columns count from 1.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    fn datum(&self, column: c_int) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong to the SPI result that is still open; a column
        // out of range comes back as null.
        let datum =
            unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, column, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// Any column as text, through its type's output function.
    pub fn text(&self, column: c_int) -> Option<String> {
        // SAFETY: as in `datum`; SPI_getvalue returns null or a palloc'd C string.
        unsafe {
            let value = pg_sys::SPI_getvalue(self.tuple, self.descriptor, column);
            (!value.is_null()).then(|| decode(CStr::from_ptr(value)))
        }
    }

    /// A column of type `bigint` or `timestamptz`.
    pub fn int8(&self, column: c_int) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    /// A column of this type, as a key.
    pub fn key(&self, column: c_int, column_type: ColumnType) -> Option<ServerTime> {
        self.datum(column).map(|datum| key_of(datum, column_type))
    }

    /// A column of type `oid` or `regclass`.
    pub fn oid(&self, column: c_int) -> Option<pg_sys::Oid> {
        self.datum(column).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    pub fn bool(&self, column: c_int) -> Option<bool> {
        self.datum(column).map(|datum| datum.value() & 1 != 0)
    }

    /// A column of type `tid`.
    pub fn tid(&self, column: c_int) -> Option<pg_sys::ItemPointerData> {
        // SAFETY: a tid is passed by reference to six bytes in the tuple, which is still there.
        self.datum(column).map(|datum| unsafe { *datum.cast_mut_ptr::<pg_sys::ItemPointerData>() })
    }
}

/// A value of a column of this type, as a key.
pub fn key_of(datum: pg_sys::Datum, column_type: ColumnType) -> ServerTime {
    match column_type {
        ColumnType::Date => key_of_day(datum.value() as i32),
        ColumnType::Timestamptz | ColumnType::Timestamp => datum.value() as i64,
    }
}

/// Runs one statement; returns how many rows it touched and what `map` made of those it
/// returned. Each statement sees what those before it did.
pub fn run<T>(
    sql: &str,
    args: &[Arg],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<(u64, Vec<T>), Failure> {
    let text = encode(sql);
    spi(args, map, |types, values, nulls| {
        let count = args.len() as c_int;
        // SAFETY: connected; the arrays are as long as `args`.
        Ok(unsafe {
            pg_sys::SPI_execute_with_args(
                text.as_ptr(),
                count,
                types,
                values,
                nulls,
                false,
                0 as c_long,
            )
        })
    })
}

/// Connects to SPI, has `execute` run a statement with the types, values and nulls of `args`, and
/// takes its result: how many rows it touched, and what `map` made of those it returned.
pub(super) fn spi<T>(
    args: &[Arg],
    mut map: impl FnMut(&Row) -> Result<T, Failure>,
    execute: impl FnOnce(*mut pg_sys::Oid, *mut pg_sys::Datum, *const c_char) -> Result<c_int, Failure>,
) -> Result<(u64, Vec<T>), Failure> {
    let mut types: Vec<_> = args.iter().map(Arg::type_oid).collect();
    let values: Vec<_> = args.iter().map(Arg::datum).collect();
    let nulls: Vec<u8> = values.iter().map(|v| if v.is_some() { b' ' } else { b'n' }).collect();
    let mut values: Vec<_> =
        values.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
    // SAFETY: connect and finish are paired on success; on an error the (sub)transaction abort
    // closes the connection. The arrays outlive the call.
    unsafe {
        let _watch = Watch::begin();
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            return Err(Failure::internal("SPI_connect failed"));
        }
        let code = execute(types.as_mut_ptr(), values.as_mut_ptr(), nulls.as_ptr().cast())?;
        if code < 0 {
            return Err(Failure::internal(&format!("SPI_execute failed with code {code}")));
        }
        let touched = pg_sys::SPI_processed;
        let table = pg_sys::SPI_tuptable;
        let mut rows = Vec::new();
        if !table.is_null() {
            for n in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(n);
                rows.push(map(&Row { tuple, descriptor: (*table).tupdesc })?);
            }
        }
        pg_sys::SPI_finish();
        Ok((touched, rows))
    }
}

/// The rows of a query.
pub fn query<T>(
    sql: &str,
    args: &[Arg],
    map: impl FnMut(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    run(sql, args, map).map(|(_, rows)| rows)
}

/// Runs a statement whose rows do not matter; returns how many it touched.
pub fn execute(sql: &str, args: &[Arg]) -> Result<u64, Failure> {
    run(sql, args, |_| Ok(())).map(|(touched, _)| touched)
}

/// A value that must be there.
pub fn required<T>(value: Option<T>, what: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::internal(&format!("{what} is null")))
}

/// An identifier, quoted where it must be.
pub fn quote_identifier(name: &str) -> String {
    let name = encode(name);
    // SAFETY: quote_identifier returns its argument or a palloc'd copy, both live here.
    decode(unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) })
}
