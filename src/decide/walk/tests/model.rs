//! A table that is a list, and a worker that walks it.

use super::super::super::progress::Progress;
use super::super::super::quarantine::Why;
use super::super::rows::Ranged;
use super::super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub const NOW: ServerTime = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Free,
    /// Somebody holds it locked.
    Locked,
    /// A trigger keeps it.
    Refused,
    /// With it no batch of more rows goes through.
    Slow,
    /// It takes too long alone too.
    Hopeless,
    /// Its deletion fails.
    Bad,
    /// With it nothing works at all.
    Broken,
    /// It looks as though somebody had cancelled it.
    Shy,
}

/// A table of rows in the order of (deadline, tid).
#[derive(Debug)]
pub struct Table {
    pub rows: Vec<(Due, Kind)>,
    pub indexed: bool,
    /// A range is deleted before it is known where it ends.
    pub at_once: bool,
    pub tried: BTreeMap<Due, u32>,
    pub largest: usize,
    pub turns: std::vec::IntoIter<bool>,
    pub waits: u32,
    /// Batches that a row made fail.
    pub failures: u32,
    /// Reads that found rows in quarantine.
    pub read_over: u32,
    pub reads: u32,
    /// It gives the rows of a tie in no order.
    pub unsorted: bool,
}

impl Table {
    pub fn new(kinds: &[(ServerTime, Kind)], indexed: bool, turns: Vec<bool>) -> Table {
        let mut rows: Vec<_> = kinds
            .iter()
            .zip(1..)
            .map(|(&(deadline, kind), offset)| {
                (Due { deadline, tid: Tid { block: 0, offset } }, kind)
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.0);
        let (tried, turns) = (BTreeMap::new(), turns.into_iter());
        Table {
            rows,
            indexed,
            at_once: false,
            tried,
            largest: 0,
            turns,
            waits: 0,
            failures: 0,
            read_over: 0,
            reads: 0,
            unsorted: false,
        }
    }

    pub fn at_once(self, at_once: bool) -> Table {
        Table { at_once, ..self }
    }

    pub fn left(&self) -> Vec<Due> {
        self.rows.iter().map(|row| row.0).filter(|due| due.deadline < NOW).collect()
    }

    /// The due rows of some kinds.
    pub fn of(&self, which: impl Fn(Kind) -> bool) -> Vec<Due> {
        let due = self.rows.iter().filter(|row| row.0.deadline < NOW && which(row.1));
        due.map(|row| row.0).collect()
    }

    pub fn select(&self, which: impl Fn(Due) -> bool, most: usize) -> Vec<Due> {
        self.left().into_iter().filter(|&due| which(due)).take(most).collect()
    }

    /// A batch over `batch`.
    pub fn reap(
        &mut self,
        batch: &[Due],
        wait: bool,
        pass: &mut Pass,
    ) -> Result<u64, Snag<&'static str>> {
        let kinds: Vec<_> =
            self.rows.iter().filter(|row| batch.contains(&row.0)).map(|row| row.1).collect();
        assert!(!self.unsorted || batch.is_sorted());
        self.largest = self.largest.max(kinds.len());
        if wait && kinds.contains(&Kind::Locked) {
            self.waits += 1;
            return Err(Snag::MetALock);
        }
        if kinds.contains(&Kind::Hopeless) || kinds.contains(&Kind::Slow) && kinds.len() > 1 {
            return Err(Snag::Cancelled("took too long"));
        }
        if kinds.contains(&Kind::Shy) {
            return Err(Snag::Cancelled("made way"));
        }
        if kinds.contains(&Kind::Broken) {
            return Err(Snag::Stop("broken"));
        }
        if kinds.contains(&Kind::Bad) {
            self.failures += 1;
            return Err(Snag::Row("cannot go"));
        }
        for due in batch {
            *self.tried.entry(*due).or_default() += 1;
        }
        let before = self.rows.len();
        self.rows.retain(|(due, kind)| {
            !batch.contains(due) || matches!(kind, Kind::Locked | Kind::Refused)
        });
        let reaped = (before - self.rows.len()) as u64;
        pass.unlogged += reaped;
        Ok(reaped)
    }
}

impl Rows for Table {
    type Stop = &'static str;

    fn indexed(&self) -> bool {
        self.indexed
    }

    fn first(
        &mut self,
        from: ServerTime,
        past: bool,
        _pass: &mut Pass,
    ) -> Result<Option<ServerTime>, &'static str> {
        let found = self.select(|due| due.deadline > from || !past && due.deadline == from, 1);
        Ok(found.first().map(|due| due.deadline))
    }

    fn ahead(
        &mut self,
        after: Due,
        most: usize,
        _pass: &mut Pass,
    ) -> Result<Vec<Due>, &'static str> {
        self.reads += 1;
        assert!(self.reads < 10_000, "it reads the same rows again and again");
        Ok(self.select(|due| due > after, most))
    }

    fn tie(&mut self, after: Due, most: usize, _pass: &mut Pass) -> Result<Vec<Due>, &'static str> {
        self.reads += 1;
        assert!(self.reads < 10_000, "it reads the same rows again and again");
        let mut rows = self.select(|due| due > after && due.deadline == after.deadline, most);
        if self.unsorted {
            rows.reverse();
        }
        Ok(rows)
    }

    fn range(
        &mut self,
        from: ServerTime,
        until: ServerTime,
        most: usize,
        pass: &mut Pass,
    ) -> Result<Ranged, Snag<&'static str>> {
        assert!(from < until && until <= pass.cutoff);
        let rest = self.select(|due| due.deadline >= from && due.deadline < until, usize::MAX);
        let cut = Cut::of(from, rest.get(most).map(|due| due.deadline));
        if self.at_once {
            self.reap(&rest[..most.min(rest.len())], true, pass)?;
        }
        let to = match cut {
            Cut::End => until,
            Cut::Before(to) => to,
            Cut::Tie => return Ok(Ranged { cut, left: None }),
        };
        let within = |due: Due| due.deadline >= from && due.deadline < to;
        if !self.at_once {
            self.reap(&self.select(within, usize::MAX), true, pass)?;
        }
        let left = self.select(within, 1).first().map(|due| due.deadline);
        Ok(Ranged { cut, left })
    }

    fn these(
        &mut self,
        rows: &[Due],
        wait: bool,
        pass: &mut Pass,
    ) -> Result<u64, Snag<&'static str>> {
        self.reap(rows, wait, pass)
    }

    fn reads_all(&self) -> bool {
        false
    }

    fn cancelled(&mut self, rows: usize, _why: &&'static str) {
        assert!(rows > 1);
    }

    fn read_over(&mut self) {
        self.read_over += 1;
    }

    fn why(&self, stop: &&'static str, again: bool) -> Option<Why> {
        let blame = again || *stop != "made way";
        blame.then(|| Why { message: (*stop).into(), sqlstate: String::new() })
    }

    fn full(&self, _held: usize, _stop: &'static str) -> &'static str {
        "full"
    }

    fn should_yield(&mut self) -> bool {
        self.turns.next().unwrap_or(false)
    }
}

pub const FIRST_WAIT: Duration = Duration::from_secs(5);

pub fn bounds(batch_size: usize) -> Bounds {
    let (max_rows, quarantine) = (u64::MAX, usize::MAX);
    Bounds { batch_size, max_rows, quarantine, now: NOW, first_wait: FIRST_WAIT }
}

/// What one worker remembers.
pub struct Memory {
    pub progress: Progress,
    pub pace: Pace,
    pub quarantine: Quarantine,
}

impl Memory {
    pub fn new(size: usize) -> Memory {
        let quarantine = Quarantine::default();
        Memory { progress: Progress::default(), pace: Pace::new(size), quarantine }
    }

    pub fn walk(
        &mut self,
        table: &mut Table,
        pass: &mut Pass,
        bounds: &Bounds,
    ) -> Result<End, &'static str> {
        walk(table, pass, &mut self.pace, &mut self.quarantine, bounds)
    }

    /// One pass, in as many turns as it takes.
    pub fn pass(&mut self, table: &mut Table, size: usize) -> Pass {
        for _turn in 0..10_000 {
            let mut pass = self.progress.resume(NOW, Duration::ZERO);
            self.progress.first_read_done(&mut pass, Duration::ZERO, Duration::from_secs(1));
            match self.walk(table, &mut pass, &bounds(size)) {
                Ok(End::CutShort) => self.progress.suspend(pass),
                Ok(End::Done) => {
                    self.progress.finish(&pass);
                    return pass;
                }
                // A row that took too long alone: the next pass goes on behind it.
                Err("took too long") => self.progress.fail(&pass),
                other => unreachable!("{other:?}"),
            }
        }
        unreachable!("the pass does not end")
    }

    /// Where the next pass begins.
    pub fn next(&mut self) -> Due {
        self.progress.resume(NOW + 1, Duration::from_secs(1)).place.after()
    }
}

pub fn kinds() -> impl Strategy<Value = Vec<(ServerTime, Kind)>> {
    let kind = prop_oneof![
        12 => Just(Kind::Free),
        1 => Just(Kind::Locked),
        1 => Just(Kind::Refused),
        1 => Just(Kind::Slow),
        1 => Just(Kind::Bad),
        1 => Just(Kind::Hopeless),
    ];
    // Some deadlines are shared by many, some rows are not due.
    proptest::collection::vec((prop_oneof![0i64..110, 40i64..43], kind), 0..120)
}

pub fn row_of(rows: ServerTime) -> Vec<(ServerTime, Kind)> {
    (0..rows).map(|n| (n, Kind::Free)).collect()
}
