//! Text in the encoding of the database, and in Rust's.
//!
//! A database may have any encoding; in `SQL_ASCII` it has none, and its text is bytes that may
//! mean anything. What goes through here and back is the same bytes again.

use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_int};

/// A byte of `SQL_ASCII` that is no part of valid UTF-8 is kept as a character of the last private
/// plane, which no text has any business with.
const RAW: u32 = 0x10_FF00;

const UTF8: c_int = pg_sys::pg_enc::PG_UTF8 as c_int;

const SQL_ASCII: c_int = pg_sys::pg_enc::PG_SQL_ASCII as c_int;

fn database_encoding() -> c_int {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

/// Whether the database is UTF-8.
pub fn is_utf8() -> bool {
    database_encoding() == UTF8
}

/// Whether text of the database is taken as it is: it is UTF-8, or nobody knows what.
fn as_it_is(text: &CStr) -> bool {
    text.to_bytes().is_ascii() || matches!(database_encoding(), UTF8 | SQL_ASCII)
}

/// Text of the database as Rust's. In a transaction.
pub fn decode(text: &CStr) -> String {
    if as_it_is(text) {
        return neutral(text);
    }
    let len = text.to_bytes().len();
    // SAFETY: converts `len` bytes into a palloc'd copy, or returns its argument.
    neutral(unsafe { CStr::from_ptr(pg_sys::pg_server_to_any(text.as_ptr(), len as c_int, UTF8)) })
}

/// Text that is of no database's encoding, or of nobody knows which: the names of databases, and
/// what stands in the configuration. It is UTF-8 where it can be.
pub fn neutral(converted: &CStr) -> String {
    let mut decoded = String::with_capacity(converted.to_bytes().len());
    let raw = |byte: u8| char::from_u32(RAW + u32::from(byte));
    for chunk in converted.to_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            // Such a character is no byte of ours, and must not be taken for one on the way back.
            match is_raw(c) {
                true => decoded.extend(c.encode_utf8(&mut [0; 4]).bytes().filter_map(raw)),
                false => decoded.push(c),
            }
        }
        decoded.extend(chunk.invalid().iter().copied().filter_map(raw));
    }
    decoded
}

/// Text of Rust's as the database's. In a transaction. A NUL, which the server's cannot have, is
/// replaced.
pub fn encode(text: &str) -> CString {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }) {
        match u32::from(c).checked_sub(RAW) {
            Some(raw @ 0x80..=0xff) => bytes.push(raw as u8),
            _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    let encoded = CString::new(bytes).unwrap_or_default();
    // Raw bytes are nobody's UTF-8.
    if as_it_is(&encoded) || text.chars().any(is_raw) {
        return encoded;
    }
    // SAFETY: as in `decode`; raises an error for a character that the database cannot have.
    unsafe {
        let len = encoded.as_bytes().len() as c_int;
        CStr::from_ptr(pg_sys::pg_any_to_server(encoded.as_ptr(), len, UTF8)).to_owned()
    }
}

/// A message as it may be reported: pgrx reports UTF-8, so where the database has another encoding
/// all that is not ASCII is written as its number.
pub fn reportable(message: &str) -> String {
    if message.is_ascii() || (database_encoding() == UTF8 && !message.chars().any(is_raw)) {
        return message.to_owned();
    }
    let escape = |c: char| -> String {
        match u32::from(c).checked_sub(RAW) {
            _ if c.is_ascii() => c.into(),
            Some(raw @ 0x80..=0xff) => format!("\\x{raw:02x}"),
            _ => format!("\\u{:04x}", u32::from(c)),
        }
    };
    message.chars().map(escape).collect()
}

fn is_raw(c: char) -> bool {
    u32::from(c) >= RAW
}
