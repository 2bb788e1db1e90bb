//! What is said of a lease that nobody can have: once, and once that it is over.

use super::held::Object;
use super::say;
use crate::decide::Ticks;
use crate::decide::lease::Sight;
use pgrx::PgSqlErrorCode;
use std::time::Duration;

/// What was said last.
#[derive(Default)]
pub struct Complaints {
    /// The broken state of the lease table.
    broken: Option<Sight>,
    /// Since when somebody keeps locked what we could have, and whether we have said so.
    held_up: Option<(Ticks, bool)>,
}

impl Complaints {
    /// Whether the lease could not be had only because somebody holds it locked just now, which is
    /// worth another try soon.
    pub fn held_up(&self) -> bool {
        self.held_up.is_some()
    }

    /// Notes whether somebody keeps locked what we could have, and complains once it has lasted for
    /// a whole lease.
    pub fn note_held_up(&mut self, held_up: bool, now: Ticks, lease: Duration) {
        self.held_up = match (held_up, self.held_up) {
            (false, before) => {
                if matches!(before, Some((_, true))) {
                    say::log("pg_reaper: the lease is not locked by somebody else any more");
                }
                None
            }
            (true, None) => Some((now, false)),
            (true, Some((since, false))) if now >= since + lease => {
                say::warn_hint(
                    PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                    &format!(
                        "pg_reaper: somebody has held the lease locked for {:.0} s, so nobody can \
                         lead",
                        (now - since).as_secs_f64()
                    ),
                    "Look in pg_locks and pg_stat_activity for who holds its row or table; nothing \
                     is reaped until it lets go.",
                );
                Some((since, true))
            }
            (true, before) => before,
        };
    }

    /// Complains of a lease table that is broken.
    pub fn note(&mut self, sight: &Sight, object: Option<&Object>) {
        let broken = matches!(sight, Sight::Missing | Sight::Doubled).then(|| sight.clone());
        if broken == self.broken {
            return;
        }
        let lease = match object {
            Some(object) if !object.setting.is_empty() => format!("the lease {}", object.setting),
            _ => "the lease".into(),
        };
        let put_back = |object: &Object| object.table.is_some() && !object.shared();
        let complaint = match &broken {
            None => None,
            Some(Sight::Doubled) => {
                Some(("has more than one row, so nobody can lead", "Delete the others."))
            }
            Some(_) if object.is_some_and(put_back) => {
                Some(("row is gone", "Nothing is to be done: it is put back."))
            }
            Some(_) => Some((
                "has no table or no row, so nobody can lead",
                "Make the table that pg_reaper.lease_table names, with its schema, and its one \
                 row; without the setting, create the extension anew.",
            )),
        };
        match complaint {
            None => say::log("pg_reaper: the lease is whole again"),
            Some((what, hint)) => {
                let code = PgSqlErrorCode::ERRCODE_WARNING;
                say::warn_hint(code, &format!("pg_reaper: {lease} {what}"), hint);
            }
        }
        self.broken = broken;
    }
}
