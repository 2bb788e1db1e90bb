//! The statements of a sweep, filled in for one table. In one place, so that each says the same of
//! the deadline.

use super::clock::server_now;
use super::prepared::Prepared;
use super::sandbox::Road;
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
    reads: Reads,
    /// The same where the filter is left to what reaps; `None`: there is no filter.
    unfiltered: Option<Reads>,
    /// The next row to fall due.
    pub next: Prepared,
    pub range: Reap,
    pub these: Reap,
    pub these_unlocked: Reap,
}

/// The statements that read the tids of due rows.
pub struct Reads {
    /// In the order of (deadline, tid).
    pub ahead: String,
    /// Those of one deadline.
    pub tie: Prepared,
    /// Those in a range of blocks.
    pub blocks: String,
}

impl Reads {
    fn new(fill: impl Fn(&str) -> String) -> Reads {
        Reads {
            ahead: fill(include_str!("../../sql/sweep/due.sql")),
            tie: Prepared::by(Road::Index, &fill(include_str!("../../sql/sweep/tie.sql"))),
            blocks: fill(include_str!("../../sql/sweep/blocks.sql")),
        }
    }
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

    /// What reads tids; of all due rows, where those are wanted and there is a filter.
    pub fn reads(&self, all: bool) -> &Reads {
        self.unfiltered.as_ref().filter(|_| all).unwrap_or(&self.reads)
    }

    pub fn new(target: &Target, watched: &Watched) -> Statements {
        let (now, table) = (server_now(), &target.name);
        let fill = |template: &str| watched.statement(template, table, now);
        let unfiltered = watched.filter.as_ref().map(|_| {
            let all = Watched { filter: None, ..watched.clone() };
            Reads::new(|template| all.statement(template, table, now))
        });
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
        let reap = |template: &str, road| {
            let statement = fill(template);
            let telling = Prepared::by(road, &telling(&statement));
            Reap { telling, quiet: Prepared::by(road, &statement) }
        };
        let by_index = |statement: &str| Prepared::by(Road::Index, &fill(statement));
        let cut = include_str!("../../sql/sweep/cut.sql");
        let range = include_str!("../../sql/sweep/range.sql");
        let these = include_str!("../../sql/sweep/these.sql");
        let these_unlocked = include_str!("../../sql/sweep/these_unlocked.sql");
        let lasting = (!watched.deadline.needs_recheck())
            .then(|| (table.clone(), target.owner, watched.clone()));
        Statements {
            lasting,
            cut: by_index(&cut.replace("@from@", ">=").replace("@filtered@", "")),
            cut_past: by_index(&cut.replace("@from@", ">").replace("@filtered@", "")),
            left: by_index(&cut.replace("@from@", ">=")),
            reads: Reads::new(fill),
            unfiltered,
            next: by_index(include_str!("../../sql/sweep/next.sql")),
            range: reap(range, Road::Index),
            these: reap(these, Road::Tids),
            these_unlocked: reap(these_unlocked, Road::Tids),
        }
    }
}
