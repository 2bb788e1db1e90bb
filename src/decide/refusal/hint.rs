//! The remedy of each refusal.

use super::Refusal;

/// `text` as a literal of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Refusal {
    /// What to do about it: a whole sentence.
    pub fn hint(&self) -> String {
        match self {
            Refusal::NotOwner { .. } => "Ask its owner or a superuser to do it.".into(),
            Refusal::NoRelation { .. } => "It may have been dropped in the meantime.".into(),
            Refusal::NotATable { .. } => {
                "pg_reaper watches ordinary and partitioned tables only.".into()
            }
            Refusal::ForeignPartition { .. } => {
                "pg_reaper deletes local rows only; detach the partition first.".into()
            }
            Refusal::Temporary { .. } => {
                "Only the session that made it can see its rows; use an ordinary table.".into()
            }
            Refusal::System { .. } => "pg_reaper watches tables of applications only.".into(),
            Refusal::OwnTable { .. } => {
                "pg_reaper keeps its own tables; adopt a table of the application.".into()
            }
            Refusal::NoColumn { column, wanted, .. } => {
                format!("A table that follows the barrier protocol has {column} of type {wanted}.")
            }
            Refusal::WrongType { column, wanted, .. } => {
                format!("Give {column} the type {wanted}, or leave the table to its own reaper.")
            }
            Refusal::NoDeadline { .. } => {
                "Let expires_column name the column that deadlines are counted from; \
                 pg_reaper_alter_policy() changes it."
                    .into()
            }
            Refusal::NotADeadline { .. } => {
                "A deadline is counted from a column of type timestamptz, or of type timestamp or \
                 date in a time zone."
                    .into()
            }
            Refusal::NoTimeZone { .. } => {
                "Give time_zone the name of the time zone that its values are in, such as 'UTC'."
                    .into()
            }
            Refusal::BadFilter { .. } => {
                "A filter is one boolean expression over the table's own columns.".into()
            }
            Refusal::FilterOfAnother { .. } => {
                "A filter is run with the rights of a table's owner: give the table to the owner of \
                 its parent, or let that role be a member of its owner."
                    .into()
            }
            Refusal::TriggerOfAnother { .. } => {
                "A trigger is run with the rights of a table's owner: give the table to the owner of \
                 its parent, or let that role be a member of its owner."
                    .into()
            }
            Refusal::AnotherColumn { policy, column, filter, .. } => {
                let filter = if *filter { ", filter => '…'" } else { "" };
                format!(
                    "Its column was renamed or dropped, and another has its name now. If that is the one \
                     to go by, run SELECT pg_reaper_alter_policy({policy}, expires_column => {}{filter}).",
                    quoted(column)
                )
            }
            Refusal::AnotherFilter { policy, .. } => format!(
                "Something that it names was renamed, retyped or made anew. Look at what \
                 it says, and give it again: SELECT pg_reaper_alter_policy({policy}, filter => '…')."
            ),
            Refusal::NoPolicy { .. } => {
                "SELECT * FROM pg_reaper_policies lists those that there are.".into()
            }
            Refusal::TableAndPolicy => {
                "Give one of the two: a table is swept by all of its policies.".into()
            }
            Refusal::NotEnabled { policy } => {
                format!("Run SELECT pg_reaper_alter_policy({policy}, enabled => true).")
            }
            Refusal::NothingNamed { parameter } => format!("Give {parameter} a value."),
            Refusal::NameTaken { .. } => "Give it another name, or none.".into(),
            Refusal::NotOptional { known, .. } => format!("What can be reset is: {known}."),
            Refusal::InvalidSetting { setting, wanted, .. } => {
                format!("Give {setting} {wanted}, or leave it out.")
            }
            Refusal::OfExpiryOnly { .. } => {
                "Its rows are due by expires_at, and by stuck_timeout where there is one.".into()
            }
            Refusal::OfBarriersOnly { .. } => {
                "Rows of other tables are due by expires_column and ttl alone.".into()
            }
            Refusal::AlreadyAdopted { .. } => {
                "Nothing is to be done; pg_reaper_disown() ends it.".into()
            }
            Refusal::NotAdopted { .. } => {
                "SELECT * FROM pg_reaper_policy lists the tables that are.".into()
            }
            Refusal::BuiltIn { .. } => "It is watched for as long as the extension exists.".into(),
            Refusal::InRecovery => {
                "Run it on the primary; on a standby rows vanish as they are replayed.".into()
            }
            Refusal::NegativeMaxRows { .. } => {
                "Give the most rows to reap, or NULL for no bound.".into()
            }
            Refusal::DeferredConstraints { .. } => {
                "Let its owner sweep it, or leave it to the worker, which makes its constraints \
                 immediate first."
                    .into()
            }
            Refusal::Changed { .. } | Refusal::PolicyChanged { .. } => "It will be tried again as it is now.".into(),
            Refusal::NoExtension => "Run CREATE EXTENSION pg_reaper.".into(),
            Refusal::Outdated { .. } => {
                "Restart the server, so that it loads the new library.".into()
            }
            Refusal::NotALease { .. } => {
                "Let pg_reaper.lease_table name an ordinary table with the columns leader (text) \
                 and acquired_at (timestamptz), or nothing."
                    .into()
            }
            Refusal::NotServed { database } => format!(
                "Name it in pg_reaper.databases (now it is left out, or is a template): add \
                 \"{database}\" to the list in postgresql.conf and reload."
            ),
            Refusal::NotStarted { .. } => {
                "The server's log says why; if the extension was created in this transaction, \
                 commit first."
                    .into()
            }
            Refusal::NoSlot => {
                "Raise max_worker_processes, which takes a restart, or stop another worker.".into()
            }
            Refusal::ClockLeapt { .. } => {
                "Set the clock right. If it is right as it is, call pg_reaper_resume() first."
                    .into()
            }
            Refusal::ClockSetBack { .. } => {
                "Rows that are written since are not judged by a time that lies ahead of them: sweep \
                 again."
                    .into()
            }
            Refusal::Locked { .. } => {
                "Another session holds a lock on it, and this sweep has waited for others' locks for \
                 pg_reaper.lock_timeout already."
                    .into()
            }
            Refusal::PolicyOfAnother { .. } => {
                "Whoever writes policies decides what is run with the rights of the owners of tables: \
                 give pg_reaper_policy to a superuser."
                    .into()
            }
            Refusal::NoSharedMemory => {
                "Add pg_reaper to shared_preload_libraries and restart the server. Until then, \
                 SELECT pg_reaper_stop(), pg_reaper_start() has a new worker take the clock for \
                 right as it is."
                    .into()
            }
            Refusal::NotStopped { .. } => {
                "It was told to, and no other will start; look at what holds it up.".into()
            }
        }
    }
}
