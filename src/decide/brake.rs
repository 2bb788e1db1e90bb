//! The brake: what holds every pass of a server, and when it lets go.
//!
//! Deadlines are judged by the wall clock, so a clock that leaps forward makes live rows look
//! dead. The brake compares it with the monotonic clock, which nobody can set: while the wall clock
//! is further ahead of where it was than `max_clock_jump`, nothing is reaped. It lets go when the
//! clock is back, or by hand.
//!
//! Where the clock was is told by a *reference*, one to two days old. So leaps within a day add
//! up, however small each of them is, and what a server gains in months does not. A leap backward
//! makes no row look dead, and a return from it within a day is none forward; after that day the
//! earlier clock is taken for right.
//!
//! The monotonic clock of Linux stands still while a machine is suspended, so waking up is a leap
//! of the wall clock. That is wanted: clients were asleep as well, or cut off, and could renew
//! nothing.
//!
//! The other hold is the grace after the server began to accept writes: clients that the outage
//! cut off make progress first.

#[cfg(test)]
mod tests;

use super::{ServerTime, Ticks, micros};
use std::fmt::{Display, Formatter, Result};
use std::mem::take;
use std::time::Duration;

/// How long a clock must have gone on undisturbed to be taken for right.
pub const TRIAL: Duration = Duration::from_secs(24 * 3600);

/// Both clocks, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub wall: ServerTime,
    /// Since the machine was started: the same for every process on it.
    pub ticks: Ticks,
}

impl Reading {
    /// How far the wall clock has leapt since `earlier`, in microseconds; less than 0: backward.
    fn leap_since(self, earlier: Reading) -> i64 {
        let passed = micros(self.ticks).saturating_sub(micros(earlier.ticks));
        self.wall.saturating_sub(earlier.wall).saturating_sub(passed)
    }
}

/// What the settings allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `None`: however far the clock leaps.
    pub max_clock_jump: Option<Duration>,
    pub startup_grace: Duration,
}

/// What holds the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The wall clock is so far ahead of where it was.
    Leap(Duration),
    /// The startup grace has so long to go.
    Grace(Duration),
}

impl Display for Hold {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Hold::Leap(leap) => write!(f, "clock leapt forward by {:.1} s", leap.as_secs_f64()),
            Hold::Grace(left) => write!(f, "startup grace, {:.1} s left", left.as_secs_f64()),
        }
    }
}

/// What is to be said in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Holds(Hold),
    /// The clock is back, or the settings allow for its leap now.
    LeapOver,
    GraceOver,
    Resumed,
}

/// What was said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Leap,
    Grace,
    /// One of the two, and since then somebody has resumed.
    Resumed,
}

/// What `resume` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    pub leap: Option<Duration>,
    pub grace: Option<Duration>,
}

/// The clock as it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trust {
    reference: Reading,
    /// The reference to come, once it has stood its trial.
    candidate: Reading,
}

/// The brake of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// `None`: nobody has looked yet, or nobody wants to know.
    trust: Option<Trust>,
    leapt: bool,
    /// When the server began to accept writes.
    began: Option<Ticks>,
    /// The grace is over, and does not come back when the setting is raised.
    grace_over: bool,
    told: Told,
    resumes: u32,
}

impl Brake {
    pub const NEW: Brake = Brake {
        trust: None,
        leapt: false,
        began: None,
        grace_over: false,
        told: Told::Nothing,
        resumes: 0,
    };

    /// Whether it is known when the server began to accept writes.
    pub fn knows_its_start(&self) -> bool {
        self.began.is_some()
    }

    /// The server began to accept writes at `began`, or just `now`.
    pub fn began(&mut self, now: Reading, began: Option<ServerTime>) {
        let age = began.map_or(0, |began| now.wall.saturating_sub(began).max(0));
        let began = now.ticks.saturating_sub(Duration::from_micros(age.unsigned_abs()));
        self.began.get_or_insert(began);
    }

    /// What holds the passes at `now`.
    pub fn judge(&mut self, now: Reading, bounds: &Bounds) -> Option<Hold> {
        let leap = self.leap(now, bounds).map(Hold::Leap);
        leap.or(self.grace(now, bounds).map(Hold::Grace))
    }

    fn leap(&mut self, now: Reading, bounds: &Bounds) -> Option<Duration> {
        let Some(limit) = bounds.max_clock_jump.map(micros) else {
            (self.trust, self.leapt) = (None, false);
            return None;
        };
        let trust = self.trust.get_or_insert(Trust { reference: now, candidate: now });
        let leap = now.leap_since(trust.reference);
        if leap > limit {
            self.leapt = true;
            return Some(Duration::from_micros(leap.unsigned_abs()));
        }
        let disturbed = now.leap_since(trust.candidate).saturating_abs() > limit;
        if take(&mut self.leapt) || disturbed {
            trust.candidate = now;
        } else if now.ticks.saturating_sub(trust.candidate.ticks) >= TRIAL {
            *trust = Trust { reference: trust.candidate, candidate: now };
        }
        None
    }

    fn grace(&mut self, now: Reading, bounds: &Bounds) -> Option<Duration> {
        if self.grace_over {
            return None;
        }
        let left = (self.began? + bounds.startup_grace).saturating_sub(now.ticks);
        self.grace_over = left.is_zero();
        (!self.grace_over).then_some(left)
    }

    /// Ends whatever holds the passes at `now`: the clock is taken for right as it is.
    pub fn resume(&mut self, now: Reading, bounds: &Bounds) -> Resumed {
        let ended = Resumed { leap: self.leap(now, bounds), grace: self.grace(now, bounds) };
        if ended.leap.is_some() {
            self.trust = Some(Trust { reference: now, candidate: now });
            self.leapt = false;
        }
        self.grace_over |= ended.grace.is_some();
        if ended.leap.is_some() || ended.grace.is_some() {
            self.resumes = self.resumes.wrapping_add(1);
            if self.told != Told::Nothing {
                self.told = Told::Resumed;
            }
        }
        ended
    }

    /// How often somebody has resumed.
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    /// What is to be said now that `hold` holds the passes, once for the whole server.
    pub fn news(&mut self, hold: Option<Hold>) -> Option<News> {
        let (tell, news) = match (self.told, hold) {
            (Told::Leap, Some(Hold::Leap(_)))
            | (Told::Grace, Some(Hold::Grace(_)))
            | (Told::Nothing, None) => return None,
            (_, Some(hold @ Hold::Leap(_))) => (Told::Leap, News::Holds(hold)),
            (_, Some(hold @ Hold::Grace(_))) => (Told::Grace, News::Holds(hold)),
            (Told::Leap, None) => (Told::Nothing, News::LeapOver),
            (Told::Grace, None) => (Told::Nothing, News::GraceOver),
            (Told::Resumed, None) => (Told::Nothing, News::Resumed),
        };
        self.told = tell;
        Some(news)
    }
}
