//! An error as a value: caught from PostgreSQL, or one of our own refusals.

use super::encoding::reportable;
use super::{errcode, say};
use crate::decide::advice;
use crate::decide::refusal::Refusal;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

/// What went wrong, with the parts of a PostgreSQL error report.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its SQLSTATE as PostgreSQL packs it: six bits to a character.
    packed: i32,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Its message without what may quote a row.
    public: Option<String>,
}

impl Failure {
    /// Something that cannot be unless pg_reaper or PostgreSQL is broken.
    pub fn internal(message: &str) -> Failure {
        Failure {
            packed: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as i32,
            message: message.into(),
            detail: None,
            hint: None,
            public: None,
        }
    }

    /// The SQLSTATE where PostgreSQL has a name for it, else that of an internal error: pgrx can
    /// report no other.
    pub fn code(&self) -> PgSqlErrorCode {
        self.packed.into()
    }

    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> String {
        (0..5).map(|n| char::from(((self.packed >> (6 * n)) & 0x3f) as u8 + b'0')).collect()
    }

    /// Whether somebody, or a timeout, cancelled the statement.
    pub fn is_cancel(&self) -> bool {
        self.code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    }

    /// Whether a plan may have been to blame that was made for what is no more.
    pub fn is_of_a_plan(&self) -> bool {
        matches!(
            self.code(),
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH
                | PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
                | PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
        )
    }

    /// Whether a lock could not be had: in time, or at all.
    pub fn is_lock(&self) -> bool {
        matches!(
            self.code(),
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
        )
    }

    /// With a hint, if it came without.
    pub fn advised(mut self) -> Failure {
        if self.hint.is_none() {
            self.hint = Some(advice::hint(&self.sqlstate()).into());
        }
        self
    }

    /// As a failure of something larger, with a remedy for that. It may be about one row.
    pub fn of(self, what: &str, hint: &str) -> Failure {
        let message = format!("{what}: {}", self.message);
        Failure { message, hint: Some(hint.into()), public: Some(what.into()), ..self }
    }

    /// What may be said of it where people look who may not see the rows.
    pub fn public(&self) -> &str {
        self.public.as_ref().unwrap_or(&self.message)
    }

    /// Reports it at `level` under a message of our own, which names the object.
    pub fn report_as(&self, level: PgLogLevel, message: String) {
        let detail = match &self.detail {
            Some(detail) => format!("SQLSTATE {}: {}", self.sqlstate(), detail),
            None => format!("SQLSTATE {}.", self.sqlstate()),
        };
        say::say(level, self.code(), &message, Some(&detail), self.hint.as_deref());
    }

    /// Raises it as an error of the running statement.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code(), reportable(&self.message), "pg_reaper");
        if let Some(detail) = self.detail {
            report = report.set_detail(reportable(&detail));
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(reportable(&hint));
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

/// Runs `say`, which reports something below an error. PostgreSQL looks for interrupts after each
/// such report: a cancellation that came then would cost the lines that are left to say, and raise
/// an error where nothing contains it.
pub fn uninterrupted(say: impl FnOnce()) {
    // SAFETY: a counter that is put back; an error in between would reset it by itself.
    unsafe {
        pg_sys::InterruptHoldoffCount += 1;
        say();
        pg_sys::InterruptHoldoffCount -= 1;
    }
}

impl From<CaughtError> for Failure {
    fn from(caught: CaughtError) -> Self {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = caught;
        let packed = errcode::of(report.sql_error_code());
        if let Some([Some(message), detail, hint]) = errcode::words() {
            return Failure { packed, message, detail, hint, public: None };
        }
        Failure {
            packed,
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
            public: None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let packed = refusal
            .sqlstate()
            .bytes()
            .enumerate()
            .map(|(n, byte)| i32::from(byte.wrapping_sub(b'0') & 0x3f) << (6 * n))
            .sum::<i32>();
        let (message, hint) = (refusal.to_string(), Some(refusal.hint()));
        Failure { packed, message, detail: None, hint, public: None }
    }
}
