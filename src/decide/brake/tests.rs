use super::*;
use proptest::prelude::*;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const BOUNDS: Bounds =
    Bounds { max_clock_jump: Some(Duration::from_secs(3_600)), startup_grace: Duration::ZERO };

/// A server whose clock can be set. All in seconds.
struct Scene {
    brake: Brake,
    bounds: Bounds,
    ticks: i64,
    /// How far the wall clock has been set ahead.
    ahead: i64,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Scene { brake: Brake::NEW, bounds: BOUNDS, ticks: 1_000, ahead: 0 };
        assert_eq!(scene.look(), None);
        scene
    }

    fn now(&self) -> Reading {
        Reading {
            wall: (800_000_000 + self.ticks + self.ahead) * 1_000_000,
            ticks: Duration::from_secs(self.ticks.unsigned_abs()),
        }
    }

    fn look(&mut self) -> Option<Hold> {
        self.brake.judge(self.now(), &self.bounds)
    }

    fn held(&mut self) -> bool {
        self.look().is_some()
    }

    fn leap(&mut self, by: i64) -> bool {
        self.ahead += by;
        self.held()
    }

    /// Lets time pass, with a look each minute; whether nothing was held.
    fn pass(&mut self, seconds: i64) -> bool {
        let mut free = true;
        for _ in 0..seconds / 60 {
            self.ticks += 60;
            free &= !self.held();
        }
        free
    }
}

fn leapt(seconds: u64) -> Option<Hold> {
    Some(Hold::Leap(Duration::from_secs(seconds)))
}

#[test]
fn a_clock_that_goes_on_as_it_should_holds_nothing() {
    assert!(Scene::new().pass(5 * DAY));
}

#[test]
fn a_leap_beyond_the_limit_holds_until_the_clock_is_back() {
    let mut scene = Scene::new();
    scene.ahead = HOUR + 1;
    assert_eq!(scene.look(), leapt(3_601));
    assert_eq!(scene.look().unwrap().to_string(), "clock leapt forward by 3601.0 s");
    assert!(!scene.leap(-1), "within the limit again");
    assert!(scene.pass(3 * DAY));
}

#[test]
fn no_time_ends_a_hold() {
    let mut scene = Scene::new();
    scene.leap(2 * HOUR);
    scene.pass(30 * DAY);
    assert_eq!(scene.look(), leapt(7_200));
    assert!(!scene.leap(-2 * HOUR));
}

#[test]
fn small_leaps_within_a_day_add_up() {
    let mut scene = Scene::new();
    scene.pass(10 * DAY + HOUR);
    assert!(!scene.leap(HOUR * 3 / 4));
    scene.pass(DAY - HOUR);
    assert!(scene.leap(HOUR * 3 / 4));
}

#[test]
fn small_leaps_over_months_do_not() {
    let mut scene = Scene::new();
    for _ in 0..60 {
        assert!(!scene.leap(HOUR / 4));
        assert!(scene.pass(DAY));
    }
}

#[test]
fn a_leap_backward_and_the_return_within_a_day_hold_nothing() {
    let mut scene = Scene::new();
    scene.pass(3 * DAY);
    for _ in 0..5 {
        assert!(!scene.leap(-10 * HOUR));
        assert!(scene.pass(DAY - 60));
        assert!(!scene.leap(10 * HOUR));
        assert!(scene.pass(HOUR));
    }
    assert!(scene.leap(HOUR + 1), "and what goes beyond is seen");
}

#[test]
fn after_a_day_the_earlier_clock_is_taken_for_right() {
    let mut scene = Scene::new();
    scene.leap(-10 * 365 * DAY);
    scene.pass(DAY);
    assert!(scene.leap(HOUR + 1));
    assert!(!scene.leap(-HOUR - 1));
}

#[test]
fn the_trial_of_a_clock_begins_again_after_a_hold() {
    let mut scene = Scene::new();
    scene.leap(-2 * HOUR);
    assert!(scene.leap(4 * HOUR), "two hours ahead of the reference");
    scene.pass(2 * DAY);
    assert!(!scene.leap(-4 * HOUR), "back at the earlier clock, which has stood no trial");
    assert!(!scene.leap(2 * HOUR), "the return is no leap");
}

#[test]
fn resuming_takes_the_clock_for_right_as_it_is() {
    let mut scene = Scene::new();
    scene.leap(2 * HOUR);
    let ended = scene.brake.resume(scene.now(), &BOUNDS);
    assert_eq!(ended, Resumed { leap: Some(Duration::from_secs(7_200)), grace: None });
    assert_eq!(scene.brake.resumes(), 1);
    assert!(scene.pass(3 * DAY));
    assert!(scene.leap(HOUR + 1), "and from there on a leap is a leap");
}

#[test]
fn resuming_sees_a_leap_that_nobody_has_looked_at_yet() {
    let mut scene = Scene::new();
    scene.ahead = 2 * HOUR;
    assert!(scene.brake.resume(scene.now(), &BOUNDS).leap.is_some());
    assert!(!scene.held());
}

#[test]
fn resuming_what_is_not_held_changes_nothing() {
    let mut scene = Scene::new();
    scene.leap(HOUR / 2);
    let before = scene.brake;
    let ended = scene.brake.resume(scene.now(), &BOUNDS);
    assert_eq!((ended, scene.brake), (Resumed { leap: None, grace: None }, before));
    assert!(scene.leap(HOUR / 2 + 1));
}

#[test]
fn without_a_limit_nothing_is_held_and_nothing_remembered() {
    let mut scene = Scene::new();
    scene.leap(2 * HOUR);
    scene.bounds.max_clock_jump = None;
    assert!(!scene.held());
    scene.bounds = BOUNDS;
    assert!(!scene.held(), "the clock of now is the new reference");
    assert!(scene.leap(HOUR + 1));
}

#[test]
fn the_grace_counts_from_when_the_server_began_to_accept_writes() {
    let mut scene = Scene::new();
    scene.bounds.startup_grace = Duration::from_secs(10);
    assert!(!scene.held(), "not known yet");
    let now = scene.now();
    scene.brake.began(now, Some(now.wall - 4_000_000));
    assert_eq!(scene.look(), Some(Hold::Grace(Duration::from_secs(6))));
    // The worker was started afresh, and asks again.
    scene.ticks += 5;
    scene.brake.began(scene.now(), None);
    assert_eq!(scene.look(), Some(Hold::Grace(Duration::from_secs(1))));
    assert_eq!(scene.look().unwrap().to_string(), "startup grace, 1.0 s left");
    scene.ticks += 1;
    assert!(!scene.held());
    scene.bounds.startup_grace = Duration::from_secs(3600);
    assert!(!scene.held(), "what is over does not begin again");
}

#[test]
fn a_start_in_the_future_is_one_of_now() {
    let mut scene = Scene::new();
    scene.bounds.startup_grace = Duration::from_secs(10);
    let now = scene.now();
    scene.brake.began(now, Some(now.wall + HOUR * 1_000_000));
    assert_eq!(scene.look(), Some(Hold::Grace(Duration::from_secs(10))));
}

#[test]
fn a_start_before_the_machine_s_is_long_ago() {
    let mut scene = Scene::new();
    scene.bounds.startup_grace = Duration::from_secs(10);
    scene.brake.began(scene.now(), Some(0));
    assert!(!scene.held());
}

#[test]
fn resuming_ends_a_grace_and_a_leap_at_once() {
    let mut scene = Scene::new();
    scene.bounds.startup_grace = Duration::from_secs(10);
    scene.brake.began(scene.now(), None);
    scene.leap(2 * HOUR);
    assert_eq!(scene.look(), leapt(7_200), "the leap comes first: a sweep by hand is held by it");
    let ended = scene.brake.resume(scene.now(), &scene.bounds);
    assert_eq!(ended.grace, Some(Duration::from_secs(10)));
    assert!(ended.leap.is_some());
    assert!(!scene.held());
}

#[test]
fn each_change_is_told_once() {
    let mut scene = Scene::new();
    let news = |scene: &mut Scene| {
        let hold = scene.look();
        scene.brake.news(hold)
    };
    assert_eq!(news(&mut scene), None);
    scene.ahead = 2 * HOUR;
    assert_eq!(news(&mut scene), leapt(7_200).map(News::Holds));
    scene.ahead += 1;
    assert_eq!(news(&mut scene), None);
    scene.ahead = 0;
    assert_eq!(news(&mut scene), Some(News::LeapOver));
    assert_eq!(news(&mut scene), None);
    scene.ahead = 2 * HOUR;
    assert!(news(&mut scene).is_some());
    scene.brake.resume(scene.now(), &BOUNDS);
    assert_eq!(news(&mut scene), Some(News::Resumed));
    assert_eq!(news(&mut scene), None);
    scene.bounds.startup_grace = Duration::from_secs(10);
    (scene.brake.began, scene.brake.grace_over) = (Some(scene.now().ticks), false);
    assert_eq!(news(&mut scene), Some(News::Holds(Hold::Grace(Duration::from_secs(10)))));
    assert_eq!(news(&mut scene), None);
    scene.ticks += 10;
    assert_eq!(news(&mut scene), Some(News::GraceOver));
}

proptest! {
    /// Whatever the clock does.
    #[test]
    fn a_hold_means_a_gain_and_what_was_never_trusted_is_held(
        steps in proptest::collection::vec((-3 * HOUR..3 * HOUR, 1..6 * HOUR), 1..60)
    ) {
        let mut scene = Scene::new();
        let mut trusted = vec![scene.ahead];
        for (leap, rest) in steps {
            let held = scene.leap(leap);
            let least = trusted.iter().min().unwrap_or(&0);
            prop_assert!(!held || scene.ahead - least > HOUR, "held without a gain");
            let most = trusted.iter().max().unwrap_or(&0);
            prop_assert!(held || scene.ahead - most <= HOUR, "a clock that was never trusted");
            if !held {
                trusted.push(scene.ahead);
            }
            prop_assert!(held || scene.pass(rest), "held without a leap");
        }
    }

    #[test]
    fn after_two_days_as_it_should_go_every_leap_beyond_the_limit_is_held(
        steps in proptest::collection::vec((-3 * HOUR..3 * HOUR, 1..6 * HOUR), 1..30)
    ) {
        let mut scene = Scene::new();
        for (leap, rest) in steps {
            scene.leap(leap);
            scene.pass(rest);
        }
        scene.brake.resume(scene.now(), &BOUNDS);
        prop_assert!(scene.pass(2 * DAY + 120));
        prop_assert!(scene.leap(HOUR + 1));
    }
}
