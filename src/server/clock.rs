//! The clocks: the server's, and the local monotonic one.

use crate::decide::brake::Reading;
use crate::decide::{ServerTime, Ticks};
use pgrx::datum::{TimestampWithTimeZone, datetime_support::ToIsoString};
use pgrx::pg_sys;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

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

/// Both clocks at one moment. Should the process stand still between one and the other, they are
/// read again: it would look like a leap.
pub fn reading() -> Reading {
    loop {
        let (before, wall, ticks) = (machine_ticks(), server_now(), machine_ticks());
        if ticks.saturating_sub(before) < Duration::from_millis(10) {
            return Reading { wall, ticks };
        }
    }
}

/// Monotonic time since the machine was started, the same for all its processes. On Linux it stands
/// still while the machine is suspended.
fn machine_ticks() -> Ticks {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time into a place of ours. It cannot fail for a clock that every system has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// A time as ISO 8601 has it, or its number when it is out of range.
pub fn iso(time: ServerTime) -> String {
    TimestampWithTimeZone::try_from(time)
        .map_or_else(|_| time.to_string(), |time| time.to_iso_string())
}
