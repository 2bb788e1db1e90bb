//! The walk over a table that is a list.

use super::super::progress::Progress;
use super::super::quarantine::{Held, Why};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const NOW: ServerTime = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
}

/// A table of rows in the order of (deadline, tid).
#[derive(Debug)]
struct Table {
    rows: Vec<(Due, Kind)>,
    indexed: bool,
    /// A range is deleted before it is known where it ends.
    at_once: bool,
    tried: BTreeMap<Due, u32>,
    largest: usize,
    turns: std::vec::IntoIter<bool>,
    waits: u32,
    /// Batches that a row made fail.
    failures: u32,
    /// Reads that found rows in quarantine.
    read_over: u32,
    reads: u32,
}

impl Table {
    fn new(kinds: &[(ServerTime, Kind)], indexed: bool, turns: Vec<bool>) -> Table {
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
        }
    }

    fn at_once(self, at_once: bool) -> Table {
        Table { at_once, ..self }
    }

    fn left(&self) -> Vec<Due> {
        self.rows.iter().map(|row| row.0).filter(|due| due.deadline < NOW).collect()
    }

    /// The due rows of some kinds.
    fn of(&self, which: impl Fn(Kind) -> bool) -> Vec<Due> {
        let due = self.rows.iter().filter(|row| row.0.deadline < NOW && which(row.1));
        due.map(|row| row.0).collect()
    }

    fn select(&self, which: impl Fn(Due) -> bool, most: usize) -> Vec<Due> {
        self.left().into_iter().filter(|&due| which(due)).take(most).collect()
    }

    /// A batch over `batch`.
    fn reap(
        &mut self,
        batch: &[Due],
        wait: bool,
        pass: &mut Pass,
    ) -> Result<u64, Snag<&'static str>> {
        let kinds: Vec<_> =
            self.rows.iter().filter(|row| batch.contains(&row.0)).map(|row| row.1).collect();
        self.largest = self.largest.max(kinds.len());
        if wait && kinds.contains(&Kind::Locked) {
            self.waits += 1;
            return Err(Snag::MetALock);
        }
        if kinds.contains(&Kind::Hopeless) || kinds.contains(&Kind::Slow) && kinds.len() > 1 {
            return Err(Snag::Cancelled("took too long"));
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
        Ok(self.select(|due| due > after && due.deadline == after.deadline, most))
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

    fn cancelled(&mut self, rows: usize, _why: &&'static str) {
        assert!(rows > 1);
    }

    fn read_over(&mut self) {
        self.read_over += 1;
    }

    fn why(&self, stop: &&'static str) -> Option<Why> {
        Some(Why { message: (*stop).into(), sqlstate: String::new() })
    }

    fn full(&self, _held: usize, _stop: &'static str) -> &'static str {
        "full"
    }

    fn should_yield(&mut self) -> bool {
        self.turns.next().unwrap_or(false)
    }
}

const FIRST_WAIT: Duration = Duration::from_secs(5);

fn bounds(batch_size: usize) -> Bounds {
    let (max_rows, quarantine) = (u64::MAX, usize::MAX);
    Bounds { batch_size, max_rows, quarantine, now: NOW, first_wait: FIRST_WAIT }
}

/// What one worker remembers.
struct Memory {
    progress: Progress,
    pace: Pace,
    quarantine: Quarantine,
}

impl Memory {
    fn new(size: usize) -> Memory {
        let quarantine = Quarantine::default();
        Memory { progress: Progress::default(), pace: Pace::new(size), quarantine }
    }

    fn walk(
        &mut self,
        table: &mut Table,
        pass: &mut Pass,
        bounds: &Bounds,
    ) -> Result<End, &'static str> {
        walk(table, pass, &mut self.pace, &mut self.quarantine, bounds)
    }

    /// One pass, in as many turns as it takes.
    fn pass(&mut self, table: &mut Table, size: usize) -> Pass {
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
    fn next(&mut self) -> Due {
        self.progress.resume(NOW + 1, Duration::from_secs(1)).place.after()
    }
}

fn kinds() -> impl Strategy<Value = Vec<(ServerTime, Kind)>> {
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

proptest! {
    #[test]
    fn a_pass_tries_each_due_row_once_in_batches_of_bounded_size(
        kinds in kinds(),
        indexed in any::<bool>(),
        at_once in any::<bool>(),
        turns in proptest::collection::vec(any::<bool>(), 0..60),
        size in 1usize..20,
    ) {
        let kinds: Vec<_> = kinds.into_iter().filter(|row| row.1 != Kind::Hopeless).collect();
        let mut table = Table::new(&kinds, indexed, turns).at_once(at_once);
        let due = table.rows.iter().copied().filter(|row| row.0.deadline < NOW).collect::<Vec<_>>();
        let bad = table.of(|kind| kind == Kind::Bad);
        let live = kinds.iter().filter(|row| row.0 >= NOW).count();
        let mut memory = Memory::new(size);
        memory.pass(&mut table, size);

        prop_assert!(table.largest <= size);
        // A range that is deleted at once may end within a deadline: what it could not have of that
        // is in the next one, and should that be a tie, among its rows.
        let times = |kind| match kind {
            Kind::Bad => 0..=0,
            Kind::Refused if at_once => 1..=3,
            _ => 1..=1,
        };
        let tried = |row| table.tried.get(row).copied().unwrap_or(0);
        prop_assert!(
            due.iter().all(|(row, kind)| times(*kind).contains(&tried(row))),
            "{:?}", table.tried
        );
        let kept = table.of(|kind| matches!(kind, Kind::Locked | Kind::Refused));
        let left = table.left();
        prop_assert_eq!(left.len(), kept.len() + bad.len());
        prop_assert_eq!(table.rows.len() - left.len(), live);
        prop_assert_eq!(memory.quarantine.all(), bad);
        // The next pass begins before whatever is left, but for what is in quarantine.
        let next = memory.next();
        prop_assert!(kept.iter().all(|row| next < *row));
    }

    #[test]
    fn what_cannot_go_stops_nothing_else_and_is_not_walked_over_again(
        kinds in kinds(), indexed in any::<bool>(), at_once in any::<bool>(), size in 1usize..20,
    ) {
        let mut table = Table::new(&kinds, indexed, vec![]).at_once(at_once);
        for row in &mut table.rows {
            if matches!(row.1, Kind::Locked | Kind::Refused) {
                row.1 = Kind::Free;
            }
        }
        let stays = table.of(|kind| matches!(kind, Kind::Bad | Kind::Hopeless));
        let mut memory = Memory::new(size);
        memory.pass(&mut table, size);
        prop_assert_eq!(&table.left(), &stays);
        prop_assert_eq!(&memory.quarantine.all(), &stays);
        prop_assert_eq!(memory.next(), Place::From(NOW).after());
        // Nor is it tried again where a walk from the left edge comes by.
        let failures = table.failures;
        let mut pass = Progress::default().resume(NOW, Duration::ZERO);
        prop_assert_eq!(memory.walk(&mut table, &mut pass, &bounds(size)), Ok(End::Done));
        prop_assert_eq!((table.failures, &table.left()), (failures, &stays));
    }

    #[test]
    fn what_was_mended_goes_with_its_next_try_and_the_rest_waits_for_longer(
        kinds in kinds(), indexed in any::<bool>(), size in 1usize..20,
        mended in proptest::collection::vec(any::<bool>(), 120),
    ) {
        let mut table = Table::new(&kinds, indexed, vec![]);
        let mut memory = Memory::new(size);
        memory.pass(&mut table, size);
        for (row, mended) in table.rows.iter_mut().zip(mended) {
            if mended || row.1 == Kind::Locked {
                row.1 = Kind::Free;
            }
        }
        let stays = table.of(|kind| matches!(kind, Kind::Bad | Kind::Hopeless));
        let Memory { progress, quarantine, .. } = &mut memory;
        let due = quarantine.all();
        let mut pass = progress.resume(NOW, Duration::ZERO);
        let done = retry(&mut table, &mut pass, quarantine, &due, &bounds(size));
        prop_assert_eq!(done, Ok(()));
        prop_assert_eq!(quarantine.all(), stays.clone());
        prop_assert!(quarantine.take_news().failed.values().all(|(held, _)| held.tries <= 2));
        prop_assert!(table.left().iter().all(|row| !due.contains(row) || stays.contains(row)));
    }

    #[test]
    fn what_was_locked_goes_with_the_next_pass(
        kinds in kinds(), indexed in any::<bool>(), at_once in any::<bool>(), size in 1usize..20,
    ) {
        let mut table = Table::new(&kinds, indexed, vec![]).at_once(at_once);
        let mut memory = Memory::new(size);
        memory.pass(&mut table, size);
        for row in &mut table.rows {
            row.1 = Kind::Free;
        }
        memory.pass(&mut table, size);
        prop_assert_eq!(table.left(), memory.quarantine.all());
    }

    #[test]
    fn max_rows_is_met_exactly_whatever_is_locked_or_cannot_go(
        kinds in kinds(), indexed in any::<bool>(), at_once in any::<bool>(),
        size in 1usize..20, max_rows in 0u64..150,
    ) {
        let kinds: Vec<_> = kinds.into_iter().filter(|row| row.1 != Kind::Hopeless).collect();
        let mut table = Table::new(&kinds, indexed, vec![]).at_once(at_once);
        let can_go = table.of(|kind| matches!(kind, Kind::Free | Kind::Slow)).len() as u64;
        let mut pass = Progress::default().resume(NOW, Duration::ZERO);
        let bounds = Bounds { max_rows, ..bounds(size) };
        let end = Memory::new(size).walk(&mut table, &mut pass, &bounds);
        prop_assert!(end.is_ok());
        prop_assert_eq!(pass.reaped(), can_go.min(max_rows));
    }
}

fn row_of(rows: ServerTime) -> Vec<(ServerTime, Kind)> {
    (0..rows).map(|n| (n, Kind::Free)).collect()
}

#[test]
fn a_lock_is_waited_for_once_and_then_passed_over_for_a_while() {
    let mut kinds = row_of(90);
    for n in [10, 30, 50, 70] {
        kinds[n].1 = Kind::Locked;
    }
    let mut table = Table::new(&kinds, true, vec![]);
    Memory::new(5).pass(&mut table, 5);
    assert_eq!((table.waits, table.left().len()), (1, 4));
}

#[test]
fn a_row_that_takes_too_long_alone_stops_the_pass_once_and_the_next_goes_on_behind_it() {
    let mut kinds = row_of(20);
    kinds[9].1 = Kind::Hopeless;
    let mut table = Table::new(&kinds, true, vec![]);
    let mut memory = Memory::new(8);
    let mut pass = memory.progress.resume(NOW, Duration::ZERO);
    let end = memory.walk(&mut table, &mut pass, &bounds(8));
    assert_eq!(end.map_err(|why| (why, table.left().len())), Err(("took too long", 11)));
    memory.progress.fail(&pass);
    memory.pass(&mut table, 8);
    assert_eq!(table.left(), memory.quarantine.all());
    assert_eq!(table.left().len(), 1);
}

#[test]
fn rows_that_cannot_go_are_found_by_halves_and_a_row_of_them_one_by_one() {
    let mut kinds = row_of(90);
    kinds[70].1 = Kind::Bad;
    let mut table = Table::new(&kinds, true, vec![]);
    Memory::new(64).pass(&mut table, 64);
    assert_eq!((table.failures, table.left().len()), (6, 1));

    let kinds: Vec<_> = (0..90).map(|n| (n, Kind::Bad)).collect();
    let mut table = Table::new(&kinds, true, vec![]);
    let mut memory = Memory::new(64);
    memory.pass(&mut table, 64);
    assert_eq!((table.failures, memory.quarantine.len()), (6 + 90, 90));
}

#[test]
fn a_full_quarantine_stops_the_pass_and_so_does_a_failure_where_there_is_none() {
    let kinds: Vec<_> = (0..20).map(|n| (n, Kind::Bad)).collect();
    for (quarantine, said) in [(7, "full"), (0, "cannot go")] {
        let mut table = Table::new(&kinds, true, vec![]);
        let mut memory = Memory::new(8);
        let mut pass = memory.progress.resume(NOW, Duration::ZERO);
        let end = memory.walk(&mut table, &mut pass, &Bounds { quarantine, ..bounds(8) });
        assert_eq!((end, memory.quarantine.len()), (Err(said), quarantine));
    }
}

#[test]
fn few_rows_are_found_behind_many_in_quarantine() {
    let mut kinds: Vec<_> = (0..20).map(|n| (n, Kind::Bad)).collect();
    kinds.push((30, Kind::Free));
    for indexed in [true, false] {
        let mut table = Table::new(&kinds, indexed, vec![]);
        let mut memory = Memory::new(5);
        memory.quarantine = Quarantine::of(
            table
                .of(|kind| kind == Kind::Bad)
                .into_iter()
                .map(|row| (row.tid, hold(row)))
                .collect(),
            BTreeSet::new(),
        );
        let mut pass = Progress::default().resume(NOW, Duration::ZERO);
        let bounds = Bounds { max_rows: 1, ..bounds(5) };
        assert_eq!(memory.walk(&mut table, &mut pass, &bounds), Ok(End::MaxRows));
        assert_eq!(table.left().len(), 20);
    }
}

/// A row that is in quarantine for long.
fn hold(row: Due) -> Held {
    Held { deadline: row.deadline, tries: 1, next_try: ServerTime::MAX }
}

#[test]
fn what_is_locked_at_its_next_try_is_not_lost_sight_of() {
    let mut table = Table::new(&[(7, Kind::Bad), (9, Kind::Free)], true, vec![]);
    let mut memory = Memory::new(5);
    memory.pass(&mut table, 5);
    table.rows[0].1 = Kind::Locked;
    let mut pass = memory.progress.resume(NOW, Duration::from_millis(1));
    let due = memory.quarantine.all();
    retry(&mut table, &mut pass, &mut memory.quarantine, &due, &bounds(5)).unwrap();
    assert_eq!(memory.walk(&mut table, &mut pass, &bounds(5)), Ok(End::Done));
    memory.progress.finish(&pass);
    assert_eq!(memory.quarantine.len(), 0);
    assert!(memory.next() < due[0]);
}

#[test]
fn a_try_that_stops_the_pass_does_not_stop_the_next_one_too() {
    let mut table = Table::new(&[(7, Kind::Bad), (9, Kind::Bad)], true, vec![]);
    let mut memory = Memory::new(5);
    memory.pass(&mut table, 5);
    table.rows[0].1 = Kind::Broken;
    let mut pass = memory.progress.resume(NOW, Duration::ZERO);
    let mut stops = |now| {
        let due = memory.quarantine.due(now, Duration::ZERO);
        let bounds = Bounds { now, ..bounds(5) };
        retry(&mut table, &mut pass, &mut memory.quarantine, &due, &bounds).is_err()
    };
    let s = |seconds: i64| NOW + seconds * 1_000_000;
    assert_eq!([stops(s(5)), stops(s(5)), stops(s(6)), stops(s(15))], [true, false, false, true]);
}

#[test]
fn ranges_go_on_between_rows_in_quarantine() {
    let mut kinds = row_of(90);
    kinds.push((7, Kind::Bad));
    let mut table = Table::new(&kinds, true, vec![]);
    let mut memory = Memory::new(5);
    memory.pass(&mut table, 5);
    table.rows.extend(Table::new(&row_of(5), true, vec![]).rows);
    table.rows.sort_unstable_by_key(|row| row.0);
    table.rows.dedup_by_key(|row| row.0);
    let mut pass = Progress::default().resume(NOW, Duration::ZERO);
    assert_eq!(memory.walk(&mut table, &mut pass, &bounds(5)), Ok(End::Done));
    assert_eq!((table.read_over, table.left().len()), (1, 1));
}

#[test]
fn an_index_without_an_order_of_its_own_among_equals_leaves_the_mark_where_it_is() {
    struct Unsorted(Table);
    impl Rows for Unsorted {
        type Stop = &'static str;
        fn indexed(&self) -> bool {
            true
        }
        fn first(
            &mut self,
            from: ServerTime,
            past: bool,
            pass: &mut Pass,
        ) -> Result<Option<ServerTime>, &'static str> {
            self.0.first(from, past, pass)
        }
        fn ahead(
            &mut self,
            after: Due,
            most: usize,
            pass: &mut Pass,
        ) -> Result<Vec<Due>, &'static str> {
            self.0.ahead(after, most, pass)
        }
        fn tie(
            &mut self,
            after: Due,
            most: usize,
            pass: &mut Pass,
        ) -> Result<Vec<Due>, &'static str> {
            let mut rows = self.0.tie(after, most, pass)?;
            rows.reverse();
            Ok(rows)
        }
        fn range(
            &mut self,
            from: ServerTime,
            until: ServerTime,
            most: usize,
            pass: &mut Pass,
        ) -> Result<Ranged, Snag<&'static str>> {
            self.0.range(from, until, most, pass)
        }
        fn these(
            &mut self,
            rows: &[Due],
            wait: bool,
            pass: &mut Pass,
        ) -> Result<u64, Snag<&'static str>> {
            assert!(rows.is_sorted());
            self.0.these(rows, wait, pass)
        }
        fn cancelled(&mut self, _rows: usize, _why: &&'static str) {}
        fn read_over(&mut self) {}
        fn why(&self, _stop: &&'static str) -> Option<Why> {
            None
        }
        fn full(&self, _held: usize, stop: &'static str) -> &'static str {
            stop
        }
        fn should_yield(&mut self) -> bool {
            false
        }
    }
    let mut table = Unsorted(Table::new(&[(7, Kind::Free); 9], true, vec![]));
    let mut progress = Progress::default();
    let mut pass = progress.resume(NOW, Duration::ZERO);
    progress.first_read_done(&mut pass, Duration::ZERO, Duration::from_secs(1));
    let (mut pace, mut quarantine) = (Pace::new(2), Quarantine::default());
    let end = walk(&mut table, &mut pass, &mut pace, &mut quarantine, &bounds(2));
    assert_eq!(end, Ok(End::Done));
    progress.finish(&pass);
    let next = progress.resume(NOW + 1, Duration::from_secs(1));
    assert_eq!((table.0.left(), next.place), (vec![], Place::From(7)));
}
