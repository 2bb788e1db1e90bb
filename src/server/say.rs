//! Lines of the log that report no error.

use super::encoding::reportable;
use super::failure::uninterrupted;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// A line at LOG.
pub fn log(message: impl AsRef<str>) {
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    say(PgLogLevel::LOG, code, message.as_ref(), None, None);
}

/// A line at WARNING.
pub fn warn(message: impl AsRef<str>) {
    say(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, message.as_ref(), None, None);
}

/// A line at WARNING with details.
pub fn warn_detail(message: &str, detail: Option<&str>) {
    say(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, message, detail, None);
}

/// A line at NOTICE, for whoever has called a function.
pub fn notice(message: &str) {
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    say(PgLogLevel::NOTICE, code, message, None, None);
}

/// A line at WARNING with a hint at the remedy.
pub fn warn_hint(code: PgSqlErrorCode, message: &str, hint: &str) {
    say(PgLogLevel::WARNING, code, message, None, Some(hint));
}

/// A line with a hint at the remedy, or with details.
pub fn say(
    level: PgLogLevel,
    code: PgSqlErrorCode,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let mut report = ErrorReport::new(code, reportable(message), "pg_reaper");
    if let Some(detail) = detail {
        report = report.set_detail(reportable(detail));
    }
    if let Some(hint) = hint {
        report = report.set_hint(reportable(hint));
    }
    uninterrupted(|| report.report(level));
}
