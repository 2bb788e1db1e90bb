//! The lease: who may sweep, decided without a server.
//!
//! One row holds the leader's id, the number of its term and the time of its last stamp. A
//! worker is in one of three standings:
//!
//! ```text
//!                 acquire (row free, stale, or stamped in the future)
//!   ┌─────────┐ ──────────────────────────────────────────────► ┌────────┐ ◄─┐ renew
//!   │ standby │                                                 │ leader │ ──┘
//!   └─────────┘ ◄────────────────────────────────────────────── └────────┘
//!        ▲        step down (row taken) or release                │    ▲
//!        │                                              renewal   │    │ renew
//!        │ step down (trust ran out)                    failed    ▼    │
//!        └───────────────────────────────────────────────── ┌──────────┐
//!                                                           │ in doubt │
//!                                                           └──────────┘
//! ```
//!
//! In doubt, the worker keeps its term but does not act. What makes a batch safe is not this
//! machine but the fence: the batch locks the row and checks [`Term::holds`] in the very
//! transaction that deletes. The machine keeps a worker from trying in vain, and [`Term`]'s
//! `trusted_until` counts from the *start* of the attempt that stamped the row, so local trust
//! always ends before the row goes stale for others.

use super::{ServerTime, Ticks, micros};
use std::fmt;
use std::time::Duration;

/// The leader id of a free lease.
pub const NOBODY: &str = "";

/// The lease row as one look at it found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    pub leader: String,
    pub term: i64,
    /// The last acquisition or renewal, by the server's clock.
    pub acquired_at: ServerTime,
}

/// What one look at the lease found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    Row(LeaseRow),
    /// Somebody else holds the row (or the table) locked. It is never waited for.
    Locked,
    /// The table has no row.
    Missing,
    /// The table has more than one row; which one counts cannot be told, so nobody leads.
    Doubled,
}

/// Why a lease row may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Free,
    /// Not renewed for a whole lease.
    Stale,
    /// Stamped further ahead than any live leader could have: the clock was set back.
    Future,
}

/// Whether `row` may be taken at `now`. A leader that is alive renews within `lease_duration`,
/// so a stamp older than that, or further ahead, is nobody's.
pub fn claim(row: &LeaseRow, now: ServerTime, lease_duration: Duration) -> Option<Claim> {
    let window = micros(lease_duration);
    if row.leader == NOBODY {
        Some(Claim::Free)
    } else if row.acquired_at < now.saturating_sub(window) {
        Some(Claim::Stale)
    } else if row.acquired_at > now.saturating_add(window) {
        Some(Claim::Future)
    } else {
        None
    }
}

/// Whether a batch should stamp the row: only once the stamp has aged by a quarter of the lease,
/// since the row lock alone fences and every stamp leaves a dead row behind. A stamp from the
/// future has aged too: it must not outlive the clock that made it.
pub fn stamp_due(acquired_at: ServerTime, now: ServerTime, lease_duration: Duration) -> bool {
    let quarter = micros(lease_duration / 4);
    acquired_at <= now.saturating_sub(quarter) || acquired_at > now
}

/// One holding of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub number: i64,
    /// Local trust in this term ends here.
    pub trusted_until: Ticks,
}

impl Term {
    /// Whether `row` still says that `me` leads in this very term.
    pub fn holds(&self, me: &str, row: &LeaseRow) -> bool {
        me != NOBODY && row.leader == me && row.term == self.number
    }
}

/// Why a leader stepped down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The row names another leader or another term.
    Taken {
        leader: String,
        term: i64,
    },
    /// The row, or its table, is gone.
    Missing,
    Doubled,
    /// No renewal went through until local trust ran out.
    TrustRanOut,
    /// The worker was told to: disabled, misconfigured, another kind of leadership, or leaving.
    Told(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Taken { leader, .. } if leader == NOBODY => {
                f.write_str("the lease was freed by somebody else")
            }
            Reason::Taken { leader, term } => {
                write!(f, "the lease is held by {leader:?} in term {term}")
            }
            Reason::Missing => f.write_str("the lease row is gone"),
            Reason::Doubled => f.write_str("the lease table has more than one row"),
            Reason::TrustRanOut => f.write_str("no renewal went through for a whole lease"),
            Reason::Told(why) => f.write_str(why),
        }
    }
}

/// What a look at the lease means for a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The row is ours: act, and stamp it.
    Ours,
    /// It cannot be told now: do not act, ask again.
    InDoubt,
    NotOurs(Reason),
}

/// Judges what a leader sees when it comes to renew, or to fence a batch.
pub fn judge(me: &str, term: &Term, sight: &Sight) -> Verdict {
    match sight {
        Sight::Row(row) if term.holds(me, row) => Verdict::Ours,
        Sight::Row(row) => {
            Verdict::NotOurs(Reason::Taken { leader: row.leader.clone(), term: row.term })
        }
        Sight::Locked => Verdict::InDoubt,
        Sight::Missing => Verdict::NotOurs(Reason::Missing),
        Sight::Doubled => Verdict::NotOurs(Reason::Doubled),
    }
}

/// A worker's standing towards the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Standby,
    Leader(Term),
    /// Holds a term, but the last renewal failed: keep it, do not act on it.
    InDoubt(Term),
}

impl Standing {
    /// The term held, trusted or not.
    pub fn term(&self) -> Option<&Term> {
        match self {
            Standing::Standby => None,
            Standing::Leader(term) | Standing::InDoubt(term) => Some(term),
        }
    }

    /// The term to act in at `now`; `None` unless we lead and trust it still.
    pub fn acting(&self, now: Ticks) -> Option<&Term> {
        match self {
            Standing::Leader(term) if now < term.trusted_until => Some(term),
            _ => None,
        }
    }

    /// The lease was acquired or stamped by an attempt that began at `started`.
    pub fn stamped(number: i64, started: Ticks, lease_duration: Duration) -> Standing {
        Standing::Leader(Term { number, trusted_until: started + lease_duration })
    }

    /// A renewal failed or could not be told. Steps down once trust has run out.
    pub fn doubted(self, now: Ticks) -> (Standing, Option<Reason>) {
        match self {
            Standing::Leader(term) | Standing::InDoubt(term) if now < term.trusted_until => {
                (Standing::InDoubt(term), None)
            }
            Standing::Standby => (Standing::Standby, None),
            _ => (Standing::Standby, Some(Reason::TrustRanOut)),
        }
    }
}

#[cfg(test)]
mod tests;
