//! What the launcher decides, as a server would see it over time.

use super::*;
use proptest::prelude::*;

const fn s(n: u64) -> Ticks {
    Duration::from_secs(n)
}

fn fleet(databases: u32) -> Fleet {
    let mut fleet = Fleet::default();
    let present: Vec<_> = (1..=databases).map(|id| (id, format!("db{id}"))).collect();
    fleet.census(s(0), &present);
    fleet
}

fn start(fleet: &mut Fleet, now: Ticks) -> DatabaseId {
    let id = fleet.next(now).expect("a database to start a worker for");
    fleet.ordered(now, id);
    id
}

#[test]
fn a_database_without_the_extension_is_left_alone_until_somebody_announces_it() {
    let mut fleet = fleet(1);
    assert_eq!(start(&mut fleet, s(0)), 1);
    fleet.gone(s(0), 1, Outcome::NoExtension, 0.5);
    assert_eq!(fleet.next(s(30)), None);
    fleet.announce(s(31), 1);
    assert_eq!(start(&mut fleet, s(31)), 1);
}

#[test]
fn an_announcement_is_not_lost_on_a_worker_that_had_looked_before() {
    let mut fleet = fleet(1);
    start(&mut fleet, s(0));
    fleet.announce(s(0), 1);
    fleet.gone(s(0), 1, Outcome::NoExtension, 0.5);
    assert_eq!(start(&mut fleet, s(0)), 1);
    fleet.gone(s(0), 1, Outcome::NoExtension, 0.5);
    assert_eq!(fleet.next(s(1)), None);
}

#[test]
fn an_audit_looks_into_one_database_a_minute_the_one_longest_ago_first() {
    let mut fleet = fleet(100);
    for n in 0..50 {
        for _ in 0..2 {
            let id = start(&mut fleet, s(n));
            fleet.gone(s(n), id, Outcome::NoExtension, 0.5);
        }
    }
    let mut looked = Vec::new();
    for now in 50..50 + 30 * 60 {
        while let Some(id) = fleet.next(s(now)) {
            fleet.ordered(s(now), id);
            fleet.gone(s(now), id, Outcome::NoExtension, 0.5);
            looked.push(id);
        }
    }
    assert_eq!(looked, (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_worker_that_served_is_back_in_a_second_and_one_that_fails_is_left_alone_for_longer() {
    let mut fleet = fleet(1);
    start(&mut fleet, s(0));
    fleet.serves(s(0), 1);
    assert_eq!(fleet.gone(s(10), 1, Outcome::Ended, 0.5), None);
    assert_eq!(fleet.next(s(10)), None);
    assert_eq!(start(&mut fleet, s(11)), 1);
    let failing = fleet.gone(s(11), 1, Outcome::Failed, 0.5);
    assert_eq!(failing, Some(News::Failing { name: "db1".into(), next_try: s(1) }));
    assert_eq!(start(&mut fleet, s(12)), 1);
    assert_eq!(fleet.gone(s(12), 1, Outcome::Failed, 0.5), None);
    assert_eq!(fleet.next(s(13)), None);
    assert_eq!(start(&mut fleet, s(14)), 1);
    assert_eq!(fleet.serves(s(14), 1), Some(News::Recovered { name: "db1".into(), failures: 2 }));
}

#[test]
fn jitter_keeps_failing_starts_apart_but_near_their_backoff() {
    for (jitter, millis) in [(0.0, 750), (1.0, 1250)] {
        let mut fleet = fleet(1);
        start(&mut fleet, s(0));
        fleet.gone(s(0), 1, Outcome::Failed, jitter);
        assert_eq!(fleet.next(Duration::from_millis(millis - 1)), None);
        assert_eq!(fleet.next(Duration::from_millis(millis)), Some(1));
    }
}

#[test]
fn a_start_that_hangs_keeps_no_other_waiting() {
    let mut fleet = fleet(4);
    assert_eq!((start(&mut fleet, s(0)), start(&mut fleet, s(0))), (1, 2));
    assert_eq!(fleet.next(s(0)), None);
    // Nor does the launcher spin while they are under way.
    assert_eq!(fleet.wake(s(0)), s(1));
    assert_eq!((start(&mut fleet, s(1)), start(&mut fleet, s(1))), (3, 4));
}

#[test]
fn a_stopped_database_gets_no_worker_until_it_is_started() {
    let mut fleet = fleet(1);
    start(&mut fleet, s(0));
    fleet.serves(s(0), 1);
    fleet.stop(1, true);
    assert!(!fleet.knows(1));
    fleet.gone(s(1), 1, Outcome::Left, 0.5);
    fleet.announce(s(2), 1);
    assert_eq!(fleet.next(s(100)), None);
    fleet.stop(1, false);
    assert_eq!(fleet.next(s(100)), Some(1));
}

#[test]
fn a_database_that_is_gone_or_not_allowed_any_more_is_forgotten() {
    let mut fleet = fleet(2);
    fleet.census(s(1), &[(2, "renamed".into())]);
    assert!(!fleet.knows(1));
    assert_eq!(start(&mut fleet, s(1)), 2);
    let failing = fleet.gone(s(1), 2, Outcome::Failed, 0.5);
    assert_eq!(failing, Some(News::Failing { name: "renamed".into(), next_try: s(1) }));
}

proptest! {
    /// With fewer slots than databases every one has its turn, as often as any other.
    #[test]
    fn turns_are_fair(databases in 1u32..12, slots in 1usize..6) {
        let mut fleet = fleet(databases);
        let turn = s(5);
        let mut serving: Vec<DatabaseId> = Vec::new();
        let mut turns = vec![0u32; databases as usize];
        for now in (0..1200).map(s) {
            while let Some(id) = fleet.next(now) {
                if serving.len() < slots {
                    fleet.ordered(now, id);
                    fleet.serves(now, id);
                    serving.push(id);
                    turns[id as usize - 1] += 1;
                } else if let (Some(out), _) = fleet.no_slot(now, turn) {
                    serving.retain(|other| *other != out);
                    fleet.gone(now, out, Outcome::Left, 0.5);
                }
            }
            prop_assert!(fleet.wake(now) > now);
        }
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        prop_assert!(*least >= 1 && most - least <= 2, "{turns:?}");
    }
}
