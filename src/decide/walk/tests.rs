//! The walk over a table that is a list.

use super::super::progress::Progress;
use super::*;
use model::*;
use proptest::prelude::*;

mod model;
mod quarantine;

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
fn an_index_without_an_order_of_its_own_among_equals_leaves_the_mark_where_it_is() {
    let mut table = Table::new(&[(7, Kind::Free); 9], true, vec![]);
    table.unsorted = true;
    let mut memory = Memory::new(2);
    memory.pass(&mut table, 2);
    assert_eq!((table.left(), memory.next()), (vec![], Place::From(7).after()));
}
