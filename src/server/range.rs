//! A batch that is a range of the index: so many rows from a deadline on.
//!
//! Where the plan allows it, the range is walked once, by a `DELETE` that ends after so many rows.
//! Otherwise its end is found first: where rows are told of one by one, or some are left out, which
//! count as well; and where the index does not go from the earliest deadline to the latest.

use super::batch::{Doing, Reaped};
use super::failure::Failure;
use super::prepared::{Prepared, with_snapshot_of_now};
use super::reaper::key;
use super::sql::{Arg, key_of};
use super::statements::Statements;
use crate::decide::ServerTime;
use crate::decide::deadline::ColumnType;
use crate::decide::walk::rows::{Cut, Ranged};

/// Up to `most` rows from one deadline on, and before another.
pub struct Range {
    /// The type of the column.
    pub of: ColumnType,
    pub from: ServerTime,
    pub until: ServerTime,
    pub most: usize,
}

impl Range {
    /// Deletes its rows, up to where the next deadline begins.
    pub fn reap(&self, all: &Statements, doing: &Doing) -> Result<(Reaped, Ranged), Failure> {
        let (reaped, read, cut) = match self.at_once(all, doing)? {
            Some(done) => done,
            None => self.after_a_look(all, doing)?,
        };
        // Rows that were there and did not go: kept by a trigger, or re-armed meanwhile to a
        // deadline that may be past as well. Rows that went cannot be left, so if all did, there
        // is nothing to look for; what came in after the snapshot is a later pass's in any case.
        let left = match cut {
            // These are tried again, with the rest of their deadline.
            Cut::Tie => None,
            _ if reaped.0 == read => None,
            Cut::Before(next) => doing.about_rows(|| self.left(all, next))?,
            Cut::End => doing.about_rows(|| self.left(all, self.until))?,
        };
        Ok((reaped, Ranged { cut, left }))
    }

    /// In one walk, if that can be done.
    fn at_once(
        &self,
        all: &Statements,
        doing: &Doing,
    ) -> Result<Option<(Reaped, u64, Cut)>, Failure> {
        if doing.tells {
            return Ok(None);
        }
        let statement = all.range.of(doing.tells);
        let delete = || statement.delete(&self.to(self.until), Some(self.most as u64));
        Ok(doing.patiently(delete)?.map(|done| {
            let next = done.next.map(|next| key_of(next, self.of));
            ((done.reaped, vec![]), done.read, Cut::of(self.from, next))
        }))
    }

    /// In two: one to see where it ends, by the same snapshot.
    fn after_a_look(&self, all: &Statements, doing: &Doing) -> Result<(Reaped, u64, Cut), Failure> {
        let most = self.most as u64;
        let cut = Cut::of(self.from, self.first(&all.cut, self.until, most)?);
        let to = match cut {
            Cut::Tie => return Ok(((0, vec![]), 0, cut)),
            Cut::Before(next) => next,
            Cut::End => self.until,
        };
        let reaped = doing.patiently(|| doing.reap(&all.range, &self.to(to)))?;
        // So many can only be all of them.
        Ok((reaped, most, cut))
    }

    /// The first deadline before `to` that has a row now.
    fn left(&self, all: &Statements, to: ServerTime) -> Result<Option<ServerTime>, Failure> {
        with_snapshot_of_now(|| self.first(&all.left, to, 0))
    }

    /// The deadline that a statement finds `after` so many rows.
    fn first(
        &self,
        statement: &Prepared,
        to: ServerTime,
        after: u64,
    ) -> Result<Option<ServerTime>, Failure> {
        let [from, to] = self.to(to);
        let found =
            statement.read(&[from, to, Arg::Int8(after as i64)], |row| key(row, self.of))?;
        Ok(found.into_iter().next())
    }

    /// Its bounds, up to a deadline, as parameters.
    fn to(&self, to: ServerTime) -> [Arg<'static>; 2] {
        [Arg::Key(self.of, self.from), Arg::Key(self.of, to)]
    }
}
