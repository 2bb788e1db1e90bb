//! What pg_reaper refuses to do, each with its SQLSTATE and a remedy.

mod hint;

use std::time::Duration;
use thiserror::Error;

/// A request that changes nothing, and why. Relations are named schema-qualified and quoted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("must be owner of table {relation}")]
    NotOwner { relation: String },
    #[error("relation with OID {oid} does not exist")]
    NoRelation { oid: u32 },
    #[error("{relation} is {kind}, not a table")]
    NotATable { relation: String, kind: &'static str },
    #[error("table {relation} has a foreign partition {partition}")]
    ForeignPartition { relation: String, partition: String },
    #[error("table {relation} is temporary")]
    Temporary { relation: String },
    #[error("table {relation} is a system table")]
    System { relation: String },
    #[error("table {relation} belongs to pg_reaper")]
    OwnTable { relation: String },
    #[error("table {relation} has no column \"{column}\"")]
    NoColumn { relation: String, column: &'static str, wanted: &'static str },
    #[error("column \"{column}\" of table {relation} has type {found}, not {wanted}")]
    WrongType { relation: String, column: &'static str, found: String, wanted: &'static str },
    #[error("table {relation} has no column \"{column}\"")]
    NoDeadline { relation: String, column: String },
    #[error("column \"{column}\" of table {relation} has type {found}, which is no point in time")]
    NotADeadline { relation: String, column: String, found: String },
    #[error(
        "column \"{column}\" of table {relation} has type {found}, which is no point in time without a time zone"
    )]
    NoTimeZone { relation: String, column: String, found: String },
    #[error("{why}")]
    BadFilter { why: String },
    #[error("table {relation} has another owner than the table that the filter was written for")]
    FilterOfAnother { relation: String },
    #[error("table {relation} belongs to another owner than a trigger that it has of its parent")]
    TriggerOfAnother { relation: String },
    #[error(
        "policy {policy} was given another column \"{column}\" than the one that table {relation} has now"
    )]
    AnotherColumn { policy: i64, relation: String, column: String, filter: bool },
    #[error(
        "the filter of policy {policy} means something else for table {relation} than when it was given: {filter}"
    )]
    AnotherFilter { policy: i64, relation: String, filter: String },
    #[error("there is no policy {policy}")]
    NoPolicy { policy: i64 },
    #[error("both a table and a policy were given")]
    TableAndPolicy,
    #[error("policy {policy} is not enabled")]
    NotEnabled { policy: i64 },
    #[error("{parameter} must not be NULL")]
    NothingNamed { parameter: &'static str },
    #[error("policy {policy} is called \"{name}\" already")]
    NameTaken { name: String, policy: i64 },
    #[error("\"{name}\" is nothing that a policy can be without")]
    NotOptional { name: String, known: String },
    #[error("{setting} must be {wanted}, but is \"{value}\"")]
    InvalidSetting { setting: &'static str, value: String, wanted: &'static str },
    #[error("a policy of barriers has no {setting}")]
    OfExpiryOnly { setting: &'static str },
    #[error("only a policy of barriers has a {setting}")]
    OfBarriersOnly { setting: &'static str },
    #[error("table {relation} is watched already, by policy {policy}")]
    AlreadyAdopted { relation: String, policy: i64 },
    #[error("table {relation} is not watched by pg_reaper")]
    NotAdopted { relation: String },
    #[error("table {relation} is pg_reaper's own barrier table")]
    BuiltIn { relation: String },
    #[error("pg_reaper cannot sweep while the server is in recovery")]
    InRecovery,
    #[error("max_rows must not be negative, but is {max_rows}")]
    NegativeMaxRows { max_rows: i64 },
    #[error("table {relation} has deferred constraints, and you are not its owner")]
    DeferredConstraints { relation: String },
    #[error(
        "table {relation} was dropped, renamed, detached, retyped or given to another owner in the meantime"
    )]
    Changed { relation: String },
    #[error("policy {policy} was altered or dropped in the meantime")]
    PolicyChanged { policy: i64 },
    #[error("extension \"pg_reaper\" is not installed in this database")]
    NoExtension,
    #[error(
        "extension \"pg_reaper\" {sql} is newer than the library {library} that the server has loaded"
    )]
    Outdated { sql: String, library: &'static str },
    #[error("{relation} cannot hold the lease of pg_reaper")]
    NotALease { relation: String },
    #[error("pg_reaper does not serve database \"{database}\"")]
    NotServed { database: String },
    #[error("the worker of database \"{database}\" did not start")]
    NotStarted { database: String },
    #[error("no worker slot is free")]
    NoSlot,
    #[error("a worker did not stop: {}", list(pids))]
    NotStopped { pids: Vec<i32> },
    #[error("passes are held: the clock leapt forward by {:.1} s", leap.as_secs_f64())]
    ClockLeapt { leap: Duration },
    #[error("the clock was set back by {:.3} s in the middle of a pass", back.as_secs_f64())]
    ClockSetBack { back: Duration },
    #[error("could not obtain a lock on table {relation} at once")]
    Locked { relation: String },
    #[error("table {relation} is named by a policy in a table whose owner may not act for its own")]
    PolicyOfAnother { relation: String },
    #[error("there is no shared memory by which a worker could be told")]
    NoSharedMemory,
}

fn list(pids: &[i32]) -> String {
    let pids: Vec<_> = pids.iter().map(|pid| format!("process {pid}")).collect();
    pids.join(", ")
}

impl Refusal {
    /// The five characters of its SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Refusal::NotOwner { .. }
            | Refusal::FilterOfAnother { .. }
            | Refusal::TriggerOfAnother { .. }
            | Refusal::PolicyOfAnother { .. } => "42501",
            Refusal::NoRelation { .. } => "42P01",
            Refusal::NotATable { .. }
            | Refusal::ForeignPartition { .. }
            | Refusal::Temporary { .. }
            | Refusal::System { .. }
            | Refusal::OwnTable { .. }
            | Refusal::NotALease { .. } => "42809",
            Refusal::NoColumn { .. } | Refusal::NoDeadline { .. } => "42703",
            Refusal::WrongType { .. } | Refusal::NotADeadline { .. } => "42804",
            Refusal::AlreadyAdopted { .. } | Refusal::NameTaken { .. } => "42710",
            Refusal::NotAdopted { .. } | Refusal::NoExtension | Refusal::NoPolicy { .. } => "42704",
            Refusal::BuiltIn { .. }
            | Refusal::DeferredConstraints { .. }
            | Refusal::Outdated { .. }
            | Refusal::AnotherColumn { .. }
            | Refusal::AnotherFilter { .. }
            | Refusal::NotEnabled { .. }
            | Refusal::OfExpiryOnly { .. }
            | Refusal::OfBarriersOnly { .. }
            | Refusal::NotServed { .. }
            | Refusal::ClockLeapt { .. }
            | Refusal::ClockSetBack { .. }
            | Refusal::NoSharedMemory => "55000",
            Refusal::NotStarted { .. } | Refusal::NotStopped { .. } => "57P03",
            Refusal::NoSlot => "53400",
            Refusal::Locked { .. } => "55P03",
            Refusal::Changed { .. } | Refusal::PolicyChanged { .. } => "40001",
            Refusal::InRecovery => "25006",
            Refusal::NegativeMaxRows { .. }
            | Refusal::NoTimeZone { .. }
            | Refusal::TableAndPolicy
            | Refusal::NotOptional { .. }
            | Refusal::InvalidSetting { .. } => "22023",
            Refusal::NothingNamed { .. } => "22004",
            Refusal::BadFilter { .. } => "42P17",
        }
    }
}
