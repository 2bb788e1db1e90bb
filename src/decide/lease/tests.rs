//! Every transition of the lease, and random interleavings of rivals.

use super::*;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(10);
const SECOND: i64 = 1_000_000;

fn row(leader: &str, term: i64, acquired_at: ServerTime) -> LeaseRow {
    LeaseRow { leader: leader.into(), term, acquired_at }
}

fn term(number: i64) -> Term {
    Term { number, trusted_until: LEASE }
}

#[test]
fn a_free_row_may_be_taken_whatever_its_stamp() {
    for stamp in [i64::MIN, 0, i64::MAX] {
        assert_eq!(claim(&row(NOBODY, 3, stamp), 0, LEASE), Some(Claim::Free));
    }
}

#[test]
fn a_row_goes_stale_only_after_a_whole_lease() {
    let now = 100 * SECOND;
    assert_eq!(claim(&row("a", 1, now - 10 * SECOND), now, LEASE), None);
    assert_eq!(claim(&row("a", 1, now - 10 * SECOND - 1), now, LEASE), Some(Claim::Stale));
    assert_eq!(claim(&row("a", 1, i64::MIN), now, LEASE), Some(Claim::Stale));
}

#[test]
fn a_stamp_from_the_future_does_not_hold_for_ever() {
    let now = 100 * SECOND;
    assert_eq!(claim(&row("a", 1, now + 10 * SECOND), now, LEASE), None);
    assert_eq!(claim(&row("a", 1, now + 10 * SECOND + 1), now, LEASE), Some(Claim::Future));
    assert_eq!(claim(&row("a", 1, i64::MAX), now, LEASE), Some(Claim::Future));
}

#[test]
fn a_stamp_is_renewed_once_it_has_aged_by_a_quarter() {
    let now = 100 * SECOND;
    assert!(!stamp_due(now, now, LEASE));
    assert!(!stamp_due(now - 2 * SECOND, now, LEASE));
    assert!(stamp_due(now - 5 * SECOND / 2, now, LEASE));
    assert!(stamp_due(now + 1, now, LEASE));
}

#[test]
fn leader_and_term_must_both_match() {
    let seen = |leader: &str, number| judge("me", &term(4), &Sight::Row(row(leader, number, 0)));
    assert_eq!(seen("me", 4), Verdict::Ours);
    for (leader, number) in [("me", 3), ("me", 5), ("other", 4), (NOBODY, 4)] {
        assert_eq!(
            seen(leader, number),
            Verdict::NotOurs(Reason::Taken { leader: leader.into(), term: number })
        );
    }
}

#[test]
fn nobody_is_not_a_leader() {
    assert!(!term(0).holds(NOBODY, &row(NOBODY, 0, 0)));
}

#[test]
fn a_locked_row_leaves_us_in_doubt_and_a_broken_table_makes_nobody_leader() {
    assert_eq!(judge("me", &term(1), &Sight::Locked), Verdict::InDoubt);
    assert_eq!(judge("me", &term(1), &Sight::Missing), Verdict::NotOurs(Reason::Missing));
    assert_eq!(judge("me", &term(1), &Sight::Doubled), Verdict::NotOurs(Reason::Doubled));
}

#[test]
fn trust_counts_from_the_start_of_the_attempt() {
    let standing = Standing::stamped(1, Duration::from_secs(3), LEASE);
    assert!(standing.acting(Duration::from_millis(12_999)).is_some());
    assert!(standing.acting(Duration::from_secs(13)).is_none());
}

#[test]
fn in_doubt_keeps_the_term_without_acting_until_trust_runs_out() {
    let leading = Standing::stamped(1, Ticks::ZERO, LEASE);
    let (doubting, reason) = leading.doubted(Duration::from_secs(5));
    assert_eq!(reason, None);
    assert!(doubting.term().is_some());
    assert!(doubting.acting(Duration::from_secs(5)).is_none());
    let (standing, reason) = doubting.doubted(LEASE);
    assert_eq!((standing, reason), (Standing::Standby, Some(Reason::TrustRanOut)));
    assert_eq!(Standing::Standby.doubted(LEASE), (Standing::Standby, None));
}

/// One rival in the model: a worker that cycles, and may stand still between any two steps.
struct Rival {
    id: String,
    standing: Standing,
    /// When the attempt under way began, by the local clock.
    started: Ticks,
    /// A batch is open: it holds the row lock, and was judged ours when it took it.
    in_batch: bool,
}

/// The lease row, its lock and both clocks: what PostgreSQL does, and nothing of what it decides.
struct World {
    row: LeaseRow,
    locked_by: Option<usize>,
    server: ServerTime,
    ticks: Ticks,
    rivals: Vec<Rival>,
    /// Who committed a batch in which term, in order.
    commits: Vec<(i64, String)>,
}

#[derive(Clone, Debug)]
enum Event {
    Cycle(usize),
    OpenBatch(usize),
    CommitBatch(usize),
    Crash(usize),
    Release(usize),
    Pass(u64),
    StepClock(i64),
}

impl World {
    fn new(rivals: usize) -> Self {
        let rivals = (0..rivals)
            .map(|n| Rival {
                id: format!("rival {n}"),
                standing: Standing::Standby,
                started: Ticks::ZERO,
                in_batch: false,
            })
            .collect();
        World {
            row: row(NOBODY, 0, 0),
            locked_by: None,
            server: 0,
            ticks: Ticks::ZERO,
            rivals,
            commits: vec![],
        }
    }

    fn sight(&self, n: usize) -> Sight {
        match self.locked_by {
            Some(other) if other != n => Sight::Locked,
            _ => Sight::Row(self.row.clone()),
        }
    }

    fn stamp(&mut self, n: usize, number: i64) {
        self.row = row(&self.rivals[n].id, number, self.server);
        self.rivals[n].standing = Standing::stamped(number, self.ticks, LEASE);
    }

    /// Renew, or acquire, in one transaction each: the row is locked only inside.
    fn cycle(&mut self, n: usize) {
        if self.rivals[n].in_batch {
            return;
        }
        let sight = self.sight(n);
        if let Some(term) = self.rivals[n].standing.term().cloned() {
            match judge(&self.rivals[n].id, &term, &sight) {
                Verdict::Ours => return self.stamp(n, term.number),
                Verdict::NotOurs(_) => self.rivals[n].standing = Standing::Standby,
                Verdict::InDoubt => {
                    let standing = self.rivals[n].standing.clone();
                    self.rivals[n].standing = standing.doubted(self.ticks).0;
                }
            }
        }
        let standby = self.rivals[n].standing.term().is_none();
        if let (true, Sight::Row(row)) = (standby, sight)
            && claim(&row, self.server, LEASE).is_some()
        {
            self.stamp(n, row.term + 1);
        }
    }

    fn open_batch(&mut self, n: usize) {
        let rival = &self.rivals[n];
        let Some(term) = rival.standing.acting(self.ticks) else {
            return;
        };
        if judge(&rival.id, term, &self.sight(n)) == Verdict::Ours {
            self.locked_by = Some(n);
            self.rivals[n].in_batch = true;
            self.rivals[n].started = self.ticks;
        }
    }

    fn commit_batch(&mut self, n: usize) {
        if !self.rivals[n].in_batch {
            return;
        }
        let term = self.rivals[n].standing.term().expect("a batch has a term").clone();
        assert!(term.holds(&self.rivals[n].id, &self.row), "the fence was passed by");
        self.commits.push((term.number, self.rivals[n].id.clone()));
        if stamp_due(self.row.acquired_at, self.server, LEASE) {
            self.row.acquired_at = self.server;
            let started = self.rivals[n].started;
            self.rivals[n].standing = Standing::stamped(term.number, started, LEASE);
        }
        self.end_batch(n);
    }

    fn end_batch(&mut self, n: usize) {
        self.rivals[n].in_batch = false;
        if self.locked_by == Some(n) {
            self.locked_by = None;
        }
    }

    fn happen(&mut self, event: &Event) {
        let count = self.rivals.len();
        match *event {
            Event::Cycle(n) => self.cycle(n % count),
            Event::OpenBatch(n) => self.open_batch(n % count),
            Event::CommitBatch(n) => self.commit_batch(n % count),
            Event::Crash(n) => {
                let n = n % count;
                self.end_batch(n);
                self.rivals[n].standing = Standing::Standby;
                self.rivals[n].id.push('+');
            }
            Event::Release(n) => {
                let n = n % count;
                let rival = &self.rivals[n];
                if let Some(term) = rival.standing.term()
                    && !rival.in_batch
                    && judge(&rival.id, term, &self.sight(n)) == Verdict::Ours
                {
                    self.row.leader = NOBODY.into();
                    self.rivals[n].standing = Standing::Standby;
                }
            }
            Event::Pass(ms) => {
                self.ticks += Duration::from_millis(ms);
                self.server += ms as i64 * 1000;
            }
            Event::StepClock(ms) => self.server += ms * 1000,
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let rival = 0usize..6;
    prop_oneof![
        6 => rival.clone().prop_map(Event::Cycle),
        4 => rival.clone().prop_map(Event::OpenBatch),
        4 => rival.clone().prop_map(Event::CommitBatch),
        1 => rival.clone().prop_map(Event::Crash),
        1 => rival.prop_map(Event::Release),
        4 => (0u64..15_000).prop_map(Event::Pass),
        1 => (-40_000i64..40_000).prop_map(Event::StepClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..Default::default() })]

    #[test]
    fn no_two_leaders_ever_commit_in_one_term_and_terms_only_rise(
        rivals in 2usize..=3, events in proptest::collection::vec(event(), 1..120)
    ) {
        let mut world = World::new(rivals);
        let mut last_term = 0;
        for event in &events {
            world.happen(event);
            prop_assert!(world.row.term >= last_term, "a term was reissued");
            last_term = world.row.term;
        }
        for pair in world.commits.windows(2) {
            prop_assert!(pair[0].0 <= pair[1].0, "a dead term committed: {:?}", world.commits);
            if pair[0].0 == pair[1].0 {
                prop_assert_eq!(&pair[0].1, &pair[1].1, "two leaders in one term");
            }
        }
    }

    #[test]
    fn whatever_happened_somebody_leads_soon_after_it_stops(
        rivals in 2usize..=3, events in proptest::collection::vec(event(), 1..120)
    ) {
        let mut world = World::new(rivals);
        for event in &events {
            world.happen(event);
        }
        for n in 0..rivals {
            world.end_batch(n);
        }
        // A stamp may lie up to one lease ahead of a clock that was set back, and then holds for
        // one more: two leases and a cycle of quiet, in turns of a cycle each.
        for _ in 0..6 {
            world.happen(&Event::Pass(5_000));
            (0..rivals).for_each(|n| world.cycle(n));
        }
        let leaders = world.rivals.iter().filter(|r| r.standing.acting(world.ticks)
            .is_some_and(|term| term.holds(&r.id, &world.row))).count();
        prop_assert_eq!(leaders, 1, "row {:?}", world.row);
    }
}
