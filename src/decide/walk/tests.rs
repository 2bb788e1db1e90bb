//! The walk over a table that is a list.

use super::super::progress::Progress;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
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
    /// It cannot be deleted alone either.
    Hopeless,
}

/// A table of rows in the order of (deadline, tid).
#[derive(Debug)]
struct Table {
    rows: Vec<(Due, Kind)>,
    indexed: bool,
    tried: BTreeMap<Due, u32>,
    largest: usize,
    turns: std::vec::IntoIter<bool>,
    waits: u32,
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
        Table { rows, indexed, tried, largest: 0, turns, waits: 0 }
    }

    fn left(&self) -> Vec<Due> {
        self.rows.iter().map(|row| row.0).filter(|due| due.deadline < NOW).collect()
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
        Ok(self.select(|due| due > after, most))
    }

    fn tie(&mut self, after: Due, most: usize, _pass: &mut Pass) -> Result<Vec<Due>, &'static str> {
        Ok(self.select(|due| due > after && due.deadline == after.deadline, most))
    }

    fn range(
        &mut self,
        from: ServerTime,
        most: usize,
        pass: &mut Pass,
    ) -> Result<Ranged, Snag<&'static str>> {
        let rest = self.select(|due| due.deadline >= from, usize::MAX);
        let cut = Cut::of(from, rest.get(most).map(|due| due.deadline));
        let to = match cut {
            Cut::End => NOW,
            Cut::Before(to) => to,
            Cut::Tie => return Ok(Ranged { cut, left: None }),
        };
        let within = |due: Due| due.deadline >= from && due.deadline < to;
        self.reap(&self.select(within, usize::MAX), true, pass)?;
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

    fn should_yield(&mut self) -> bool {
        self.turns.next().unwrap_or(false)
    }
}

/// One pass, in as many turns as it takes.
fn pass(table: &mut Table, progress: &mut Progress, pace: &mut Pace, size: usize) -> Pass {
    for _turn in 0..10_000 {
        let mut pass = progress.resume(NOW, Duration::ZERO);
        progress.first_read_done(&mut pass, Duration::ZERO, Duration::from_secs(1));
        match walk(table, &mut pass, pace, size, u64::MAX) {
            Ok(End::CutShort) => progress.suspend(pass),
            Ok(End::Done) => {
                progress.finish(&pass);
                return pass;
            }
            other => unreachable!("{other:?}"),
        }
    }
    unreachable!("the pass does not end")
}

fn kinds() -> impl Strategy<Value = Vec<(ServerTime, Kind)>> {
    let kind = prop_oneof![
        12 => Just(Kind::Free),
        1 => Just(Kind::Locked),
        1 => Just(Kind::Refused),
        1 => Just(Kind::Slow),
    ];
    // Some deadlines are shared by many, some rows are not due.
    proptest::collection::vec((prop_oneof![0i64..110, 40i64..43], kind), 0..120)
}

proptest! {
    #[test]
    fn a_pass_tries_each_due_row_once_in_batches_of_bounded_size(
        kinds in kinds(),
        indexed in any::<bool>(),
        turns in proptest::collection::vec(any::<bool>(), 0..60),
        size in 1usize..20,
    ) {
        let mut table = Table::new(&kinds, indexed, turns);
        let due = table.left();
        let live = kinds.iter().filter(|row| row.0 >= NOW).count();
        let mut progress = Progress::default();
        pass(&mut table, &mut progress, &mut Pace::new(size), size);

        prop_assert!(table.largest <= size);
        prop_assert!(due.iter().all(|row| table.tried.get(row) == Some(&1)), "{:?}", table.tried);
        let kept = |kind| matches!(kind, Kind::Locked | Kind::Refused);
        let left = table.left();
        prop_assert_eq!(left.len(), kinds.iter().filter(|row| row.0 < NOW && kept(row.1)).count());
        prop_assert_eq!(table.rows.len() - left.len(), live);
        // The next pass begins before whatever is left.
        let next = progress.resume(NOW + 1, Duration::from_secs(1)).place.after();
        prop_assert!(left.iter().all(|row| next < *row));
    }

    #[test]
    fn what_was_locked_goes_with_the_next_pass(
        kinds in kinds(), indexed in any::<bool>(), size in 1usize..20,
    ) {
        let mut table = Table::new(&kinds, indexed, vec![]);
        let (mut progress, mut pace) = (Progress::default(), Pace::new(size));
        pass(&mut table, &mut progress, &mut pace, size);
        for row in &mut table.rows {
            row.1 = Kind::Free;
        }
        pass(&mut table, &mut progress, &mut pace, size);
        prop_assert_eq!(table.left(), vec![]);
    }

    #[test]
    fn max_rows_is_met_exactly_whatever_is_locked(
        kinds in kinds(), indexed in any::<bool>(), size in 1usize..20, max_rows in 0u64..150,
    ) {
        let mut table = Table::new(&kinds, indexed, vec![]);
        let kept = |kind| matches!(kind, Kind::Locked | Kind::Refused);
        let can_go = kinds.iter().filter(|row| row.0 < NOW && !kept(row.1)).count() as u64;
        let mut pass = Progress::default().resume(NOW, Duration::ZERO);
        let end = walk(&mut table, &mut pass, &mut Pace::new(size), size, max_rows);
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
    pass(&mut table, &mut Progress::default(), &mut Pace::new(5), 5);
    assert_eq!((table.waits, table.left().len()), (1, 4));
}

#[test]
fn a_row_that_cannot_be_had_stops_the_pass_once_it_is_alone_in_its_batch() {
    let mut kinds = row_of(20);
    kinds[9].1 = Kind::Hopeless;
    let mut table = Table::new(&kinds, true, vec![]);
    let mut pass = Progress::default().resume(NOW, Duration::ZERO);
    let end = walk(&mut table, &mut pass, &mut Pace::new(8), 8, u64::MAX);
    assert_eq!(end.map_err(|why| (why, table.left().len())), Err(("took too long", 11)));
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
            most: usize,
            pass: &mut Pass,
        ) -> Result<Ranged, Snag<&'static str>> {
            self.0.range(from, most, pass)
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
        fn should_yield(&mut self) -> bool {
            false
        }
    }
    let mut table = Unsorted(Table::new(&[(7, Kind::Free); 9], true, vec![]));
    let mut progress = Progress::default();
    let mut pass = progress.resume(NOW, Duration::ZERO);
    progress.first_read_done(&mut pass, Duration::ZERO, Duration::from_secs(1));
    assert_eq!(walk(&mut table, &mut pass, &mut Pace::new(2), 2, u64::MAX), Ok(End::Done));
    progress.finish(&pass);
    let next = progress.resume(NOW + 1, Duration::from_secs(1));
    assert_eq!((table.0.left(), next.place), (vec![], Place::From(7)));
}
