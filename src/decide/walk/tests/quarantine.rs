//! Rows that cannot be reaped.

use super::super::super::progress::Progress;
use super::super::super::quarantine::Held;
use super::super::retry::retry;
use super::model::*;
use super::*;
use std::collections::BTreeSet;

proptest! {
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
fn a_row_that_looks_as_though_somebody_cancelled_it_is_to_blame_the_third_time() {
    let mut kinds = row_of(20);
    kinds[9].1 = Kind::Shy;
    let mut table = Table::new(&kinds, true, vec![]);
    let mut memory = Memory::new(8);
    let mut turn = |memory: &mut Memory| {
        let mut pass = memory.progress.resume(NOW, Duration::ZERO);
        let end = memory.walk(&mut table, &mut pass, &bounds(8));
        memory.progress.fail(&pass);
        (end, table.left().len())
    };
    for _ in 0..3 {
        assert_eq!(turn(&mut memory), (Err("made way"), 11));
    }
    assert_eq!(turn(&mut memory), (Ok(End::Done), 1));
}
