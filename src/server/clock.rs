//! The clocks: the server's, and the local monotonic one.

use crate::decide::{ServerTime, Ticks};
use pgrx::datum::{TimestampWithTimeZone, datetime_support::ToIsoString};
use pgrx::pg_sys;
use std::sync::LazyLock;
use std::time::Instant;

/// The time of now, by the server's clock.
pub fn server_now() -> ServerTime {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Local monotonic time: since this process first asked.
pub fn ticks() -> Ticks {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    ORIGIN.elapsed()
}

/// A time as ISO 8601 has it, or its number when it is out of range.
pub fn iso(time: ServerTime) -> String {
    TimestampWithTimeZone::try_from(time)
        .map_or_else(|_| time.to_string(), |time| time.to_iso_string())
}
