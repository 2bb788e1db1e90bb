//! The statements of a sweep, filled in for one table. In one place, so that each says the same of
//! the deadline.

use super::clock::server_now;
use super::prepared::Prepared;
use super::target::{Target, Watched};
use pgrx::pg_sys;

/// The statements on one table, by one rule.
pub struct Statements {
    /// What they were filled in for, if they can be used again: not where a time stands in them.
    lasting: Option<(String, pg_sys::Oid, Watched)>,
    /// The deadline that comes so many rows after one, the row with it included.
    pub cut: Prepared,
    /// The same, but only of rows after it.
    pub cut_past: Prepared,
    /// The first deadline that still has a row which the filter lets through.
    pub left: Prepared,
    /// Due rows in the order of (deadline, tid).
    pub ahead: String,
    /// Rows with one deadline.
    pub tie: Prepared,
    /// The next row to fall due.
    pub next: Prepared,
    /// Due rows in a range of blocks.
    pub blocks: String,
    pub range: Reap,
    pub these: Reap,
    pub these_unlocked: Reap,
}

/// A statement that reaps.
pub struct Reap {
    quiet: Prepared,
    telling: Prepared,
}

impl Reap {
    /// The one that returns what a log line says, or the one that returns nothing: telling costs.
    pub fn of(&self, tells: bool) -> &Prepared {
        if tells { &self.telling } else { &self.quiet }
    }
}

impl Statements {
    /// Whether they say what statements made now would.
    pub fn are_for(&self, target: &Target, watched: &Watched) -> bool {
        self.lasting.as_ref().is_some_and(|(table, owner, known)| {
            *table == target.name && *owner == target.owner && known == watched
        })
    }

    pub fn new(target: &Target, watched: &Watched) -> Statements {
        let (now, table) = (server_now(), &target.name);
        let fill = |template: &str| watched.statement(template, table, now);
        let column = &watched.deadline.column;
        let shape = watched.barrier.unwrap_or_default();
        let telling = |statement: &str| {
            format!(
                "{statement}\nRETURNING execution_id, {}, {}, {column}",
                if shape.organization_id { "organization_id" } else { "NULL" },
                if shape.remaining {
                    "remaining::pg_catalog.int8"
                } else {
                    "NULL::pg_catalog.int8"
                },
            )
        };
        let reap = |template: &str, prepare: fn(&str) -> Prepared| {
            let statement = fill(template);
            Reap { telling: prepare(&telling(&statement)), quiet: prepare(&statement) }
        };
        let cut = include_str!("../../sql/sweep/cut.sql");
        let range = include_str!("../../sql/sweep/range.sql");
        let these = include_str!("../../sql/sweep/these.sql");
        let these_unlocked = include_str!("../../sql/sweep/these_unlocked.sql");
        let lasting = (!watched.deadline.needs_recheck())
            .then(|| (table.clone(), target.owner, watched.clone()));
        Statements {
            lasting,
            cut: Prepared::by_index(&fill(&cut.replace("@from@", ">=").replace("@filtered@", ""))),
            cut_past: Prepared::by_index(&fill(
                &cut.replace("@from@", ">").replace("@filtered@", ""),
            )),
            left: Prepared::by_index(&fill(&cut.replace("@from@", ">="))),
            ahead: fill(include_str!("../../sql/sweep/due.sql")),
            tie: Prepared::by_index(&fill(include_str!("../../sql/sweep/tie.sql"))),
            next: Prepared::by_index(&fill(include_str!("../../sql/sweep/next.sql"))),
            blocks: fill(include_str!("../../sql/sweep/blocks.sql")),
            range: reap(range, Prepared::by_index),
            these: reap(these, Prepared::new),
            these_unlocked: reap(these_unlocked, Prepared::new),
        }
    }
}
