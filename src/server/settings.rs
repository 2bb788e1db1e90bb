//! The `pg_reaper.*` settings.

use super::encoding::neutral;
use crate::decide::config::{Leadership, Settings};
use crate::decide::databases::Databases;
use pgrx::pg_sys::AsPgCStr;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};
use std::time::Duration;

/// `pg_reaper.leadership`, as PostgreSQL knows it.
#[derive(Clone, Copy, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names are the values of the setting")]
enum LeadershipSetting {
    lease,
    advisory,
}

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static LEASE_DURATION: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static LEADERSHIP: GucSetting<LeadershipSetting> =
    GucSetting::<LeadershipSetting>::new(LeadershipSetting::lease);
static LEASE_TABLE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static STUCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(0);
static DUTY_CYCLE: GucSetting<i32> = GucSetting::<i32>::new(2);
static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static STATEMENT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(0);
static LOG_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(100);
static QUARANTINE_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static MAX_CLOCK_JUMP: GucSetting<i32> = GucSetting::<i32>::new(HOUR_MS);
static STARTUP_GRACE: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// The most rows that a batch may have.
pub const MOST_ROWS: i32 = 100_000;

const HOUR_MS: i32 = 3_600_000;
const DAY_MS: i32 = 24 * HOUR_MS;

struct Int {
    name: &'static CStr,
    setting: &'static GucSetting<i32>,
    range: (i32, i32),
    context: GucContext,
    unit: GucFlags,
    short: &'static CStr,
    long: &'static CStr,
}

/// Defines every setting. Those that make sense for one database alone can be set with
/// `ALTER DATABASE`; the others only in the configuration file.
pub fn define() {
    GucRegistry::define_bool_guc(
        c"pg_reaper.enabled",
        c"Whether the worker sweeps.",
        c"When off, it releases its lease and idles.",
        &ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_reaper.databases",
            c"The databases that get a worker, where they have the extension.",
            c"A list of names, separated by commas and in double quotes where they must be; * means every database.",
            &DATABASES,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_databases),
            None,
            None,
        );
    }
    GucRegistry::define_enum_guc(
        c"pg_reaper.leadership",
        c"How a worker becomes the one that sweeps.",
        c"lease: by the row of pg_reaper_lease. advisory: by a session lock, which writes nothing while idle.",
        &LEADERSHIP,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_reaper.lease_table",
        c"Another table that holds the lease, to be shared with an outside reaper.",
        c"Named with its schema; it has the columns leader and acquired_at, and one row. Empty: pg_reaper_lease. Not together with leadership = advisory.",
        &LEASE_TABLE,
        GucContext::Suset,
        GucFlags::default(),
    );
    for int in [
        Int {
            name: c"pg_reaper.interval",
            setting: &INTERVAL,
            range: (10, HOUR_MS),
            context: GucContext::Sighup,
            unit: GucFlags::UNIT_MS,
            short: c"Longest wait between two cycles of the worker.",
            long: c"Must be shorter than pg_reaper.lease_duration.",
        },
        Int {
            name: c"pg_reaper.lease_duration",
            setting: &LEASE_DURATION,
            range: (100, DAY_MS),
            context: GucContext::Sighup,
            unit: GucFlags::UNIT_MS,
            short: c"A lease that was not renewed for this long is free to take.",
            long: c"Must be longer than pg_reaper.interval.",
        },
        Int {
            name: c"pg_reaper.stuck_timeout",
            setting: &STUCK_TIMEOUT,
            range: (0, i32::MAX),
            context: GucContext::Suset,
            unit: GucFlags::UNIT_S,
            short: c"A barrier without progress for this long is reaped too.",
            long: c"0 turns this off: only expires_at counts.",
        },
        Int {
            name: c"pg_reaper.batch_size",
            setting: &BATCH_SIZE,
            range: (1, MOST_ROWS),
            context: GucContext::Suset,
            unit: GucFlags::default(),
            short: c"Most rows in one batch, which is one transaction.",
            long: c"A batch that times out is tried again at half its size.",
        },
        Int {
            name: c"pg_reaper.duty_cycle",
            setting: &DUTY_CYCLE,
            range: (1, 100),
            context: GucContext::Suset,
            unit: GucFlags::default(),
            short: c"The share of the time, in percent, that the batches of a backlog may take.",
            long: c"The worker rests in between. The share is doubled for each minute that a backlog lasts; 100 means no rest.",
        },
        Int {
            name: c"pg_reaper.lock_timeout",
            setting: &LOCK_TIMEOUT,
            range: (1, HOUR_MS),
            context: GucContext::Suset,
            unit: GucFlags::UNIT_MS,
            short: c"Longest wait for any lock.",
            long: c"Always shorter than a statement may take.",
        },
        Int {
            name: c"pg_reaper.statement_timeout",
            setting: &STATEMENT_TIMEOUT,
            range: (0, HOUR_MS),
            context: GucContext::Suset,
            unit: GucFlags::UNIT_MS,
            short: c"Longest single statement of the worker.",
            long: c"0 means a third of pg_reaper.lease_duration, and it is never more.",
        },
        Int {
            name: c"pg_reaper.log_limit",
            setting: &LOG_LIMIT,
            range: (0, 1_000_000),
            context: GucContext::Suset,
            unit: GucFlags::default(),
            short: c"Rows logged one by one in a pass.",
            long: c"Past it, one line says how many more there were.",
        },
        Int {
            name: c"pg_reaper.quarantine_limit",
            setting: &QUARANTINE_LIMIT,
            range: (0, 1_000_000),
            context: GucContext::Suset,
            unit: GucFlags::default(),
            short: c"Most rows of one table in quarantine.",
            long: c"Past it, a row that cannot be reaped stops the sweep of its table; 0 means that the first one does.",
        },
        Int {
            name: c"pg_reaper.max_clock_jump",
            setting: &MAX_CLOCK_JUMP,
            range: (0, 7 * DAY_MS),
            context: GucContext::Sighup,
            unit: GucFlags::UNIT_MS,
            short: c"A clock that leaps forward by more than this holds all passes.",
            long: c"Until it is back, or pg_reaper_resume() is called. 0 turns this off.",
        },
        Int {
            name: c"pg_reaper.startup_grace",
            setting: &STARTUP_GRACE,
            range: (-1, DAY_MS),
            context: GucContext::Sighup,
            unit: GucFlags::UNIT_MS,
            short: c"How long passes wait after a start, a crash or a promotion of the server.",
            long: c"-1 means one pg_reaper.lease_duration; 0 means no wait.",
        },
    ] {
        GucRegistry::define_int_guc(
            int.name,
            int.short,
            int.long,
            int.setting,
            int.range.0,
            int.range.1,
            int.context,
            int.unit,
        );
    }
    // SAFETY: called from _PG_init with a NUL-terminated prefix, after all settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_reaper".as_ptr()) };
}

/// The settings as they stand in this process now.
pub fn read() -> Settings {
    let optional = |duration: Duration| (duration > Duration::ZERO).then_some(duration);
    Settings {
        enabled: ENABLED.get(),
        interval: millis(INTERVAL.get()),
        lease_duration: millis(LEASE_DURATION.get()),
        leadership: match LEADERSHIP.get() {
            LeadershipSetting::lease => Leadership::Lease,
            LeadershipSetting::advisory => Leadership::Advisory,
        },
        lease_table: LEASE_TABLE.get().map(|name| neutral(&name)).unwrap_or_default().trim().into(),
        stuck_timeout: optional(Duration::from_secs(u64::from(STUCK_TIMEOUT.get().unsigned_abs()))),
        duty_cycle: DUTY_CYCLE.get().unsigned_abs(),
        batch_size: BATCH_SIZE.get().unsigned_abs() as usize,
        lock_timeout: millis(LOCK_TIMEOUT.get()),
        statement_timeout: optional(millis(STATEMENT_TIMEOUT.get())),
        log_limit: LOG_LIMIT.get().unsigned_abs() as usize,
        quarantine_limit: QUARANTINE_LIMIT.get().unsigned_abs() as usize,
        max_clock_jump: optional(millis(MAX_CLOCK_JUMP.get())),
        startup_grace: u64::try_from(STARTUP_GRACE.get()).ok().map(Duration::from_millis),
    }
}

/// The databases that get a worker.
pub fn databases() -> Databases {
    let list = DATABASES.get().map(|list| neutral(&list)).unwrap_or_default();
    // What cannot be read was refused when it was set.
    Databases::read(&list).unwrap_or(Databases::All)
}

// SAFETY: only PostgreSQL calls it, with a pointer to the new value, which may be null.
#[pg_guard]
unsafe extern "C-unwind" fn check_databases(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above; the message is copied into memory of PostgreSQL's.
    unsafe {
        if (*value).is_null() {
            return true;
        }
        match Databases::read(&CStr::from_ptr(*value).to_string_lossy()) {
            Ok(_) => true,
            Err(why) => {
                let detail = format!("The list cannot be read: {why}.");
                pg_sys::GUC_check_errdetail_string = detail.as_pg_cstr();
                false
            }
        }
    }
}

fn millis(setting: i32) -> Duration {
    Duration::from_millis(u64::from(setting.unsigned_abs()))
}
