//! Which settings may be in force together.
//!
//! PostgreSQL checks each setting by itself; that `interval` is shorter than `lease_duration`
//! can only be judged once both are known.

use super::brake::Bounds;
use std::time::Duration;

/// How leadership is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// By the lease row.
    Lease,
    /// By a session lock, which writes nothing while idle.
    Advisory,
}

/// All settings, as they stand in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub enabled: bool,
    pub interval: Duration,
    pub lease_duration: Duration,
    pub leadership: Leadership,
    /// Another table that holds the lease; empty: pg_reaper's own.
    pub lease_table: String,
    /// `None`: barriers without progress are left to their `expires_at`.
    pub stuck_timeout: Option<Duration>,
    /// The share of the time, in percent, that the batches of a backlog may take.
    pub duty_cycle: u32,
    pub batch_size: usize,
    pub lock_timeout: Duration,
    /// `None`: a third of the lease.
    pub statement_timeout: Option<Duration>,
    pub log_limit: usize,
    /// The most rows of one table in quarantine.
    pub quarantine_limit: usize,
    /// `None`: however far the clock leaps.
    pub max_clock_jump: Option<Duration>,
    /// `None`: one lease.
    pub startup_grace: Option<Duration>,
}

/// Settings that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misconfigured {
    #[error(
        "pg_reaper.interval ({interval:?}) must be shorter than pg_reaper.lease_duration ({lease_duration:?})"
    )]
    Pair { interval: Duration, lease_duration: Duration },
    #[error("pg_reaper.lease_table ({table}) has no meaning with pg_reaper.leadership = advisory")]
    TableUnderAdvisory { table: String },
}

impl Misconfigured {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Misconfigured::Pair { interval, lease_duration } => format!(
                "A leader renews its lease once an interval, so it would lose it between two \
                 renewals. Set pg_reaper.lease_duration to {:?} or more, or pg_reaper.interval to \
                 {:?} or less, and reload.",
                *interval * 2,
                *lease_duration / 2
            ),
            Misconfigured::TableUnderAdvisory { .. } => {
                "A session lock is not shared with an outside reaper. Leave one of the two out, \
                 and reload."
                    .into()
            }
        }
    }
}

impl Settings {
    /// Whether a leader can keep its lease under these settings.
    pub fn check(&self) -> Result<(), Misconfigured> {
        let (interval, lease_duration) = (self.interval, self.lease_duration);
        if interval >= lease_duration {
            return Err(Misconfigured::Pair { interval, lease_duration });
        }
        if self.leadership == Leadership::Advisory && !self.lease_table.is_empty() {
            let table = self.lease_table.clone();
            return Err(Misconfigured::TableUnderAdvisory { table });
        }
        Ok(())
    }

    /// The longest single statement: the setting, and never more than a third of the lease, so
    /// that no batch outlives it.
    pub fn statement_limit(&self) -> Duration {
        let third = self.lease_duration / 3;
        self.statement_timeout.map_or(third, |limit| limit.min(third))
    }

    /// The longest wait for a lock: the setting, and always shorter than a statement may take, so
    /// that a blocked batch fails for what blocks it.
    pub fn lock_limit(&self) -> Duration {
        self.lock_timeout.min(self.statement_limit() * 3 / 4)
    }

    /// What the brake goes by.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_clock_jump: self.max_clock_jump,
            startup_grace: self.startup_grace.unwrap_or(self.lease_duration),
        }
    }
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    InForce,
    /// What belongs together contradicts itself: interval and lease, or leadership and its table.
    /// The last valid pair stays.
    PairKept(Misconfigured),
    /// It does, and there never was a valid pair: the worker cannot lead.
    CannotLead(Misconfigured),
}

/// The settings in force, or none while there never was a valid pair.
#[derive(Debug, Default)]
pub struct InForce {
    settings: Option<Settings>,
}

impl InForce {
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Takes up `read`, the settings as they stand in the configuration now.
    pub fn take_up(&mut self, read: Settings) -> Change {
        match (read.check(), self.settings.as_ref()) {
            (Ok(()), _) => {
                self.settings = Some(read);
                Change::InForce
            }
            (Err(why), Some(last)) => {
                let Settings { interval, lease_duration, leadership, .. } = *last;
                let lease_table = last.lease_table.clone();
                self.settings =
                    Some(Settings { interval, lease_duration, leadership, lease_table, ..read });
                Change::PairKept(why)
            }
            (Err(why), None) => Change::CannotLead(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(interval: u64, lease: u64) -> Settings {
        Settings {
            enabled: true,
            interval: Duration::from_millis(interval),
            lease_duration: Duration::from_millis(lease),
            leadership: Leadership::Lease,
            lease_table: String::new(),
            stuck_timeout: None,
            duty_cycle: 100,
            batch_size: 1000,
            lock_timeout: Duration::from_secs(1),
            statement_timeout: None,
            log_limit: 100,
            quarantine_limit: 10_000,
            max_clock_jump: None,
            startup_grace: None,
        }
    }

    #[test]
    fn the_startup_grace_is_one_lease_unless_it_is_set() {
        let mut s = settings(1, 9);
        assert_eq!(s.bounds().startup_grace, Duration::from_millis(9));
        s.startup_grace = Some(Duration::ZERO);
        assert_eq!(s.bounds().startup_grace, Duration::ZERO);
    }

    #[test]
    fn the_interval_must_be_shorter_than_the_lease() {
        assert!(settings(4999, 5000).check().is_ok());
        let error = settings(5000, 5000).check().unwrap_err();
        assert!(error.to_string().contains("pg_reaper.interval (5s)"), "{error}");
        assert!(error.hint().contains("pg_reaper.lease_duration to 10s"), "{}", error.hint());
    }

    #[test]
    fn another_table_and_a_session_lock_exclude_each_other() {
        let mut bad = settings(1, 9);
        bad.lease_table = "app.lock".into();
        assert!(bad.check().is_ok());
        bad.leadership = Leadership::Advisory;
        assert!(bad.check().unwrap_err().to_string().contains("pg_reaper.lease_table (app.lock)"));
        let mut in_force = InForce::default();
        in_force.take_up(settings(1, 9));
        assert!(matches!(in_force.take_up(bad), Change::PairKept(_)));
        assert_eq!(in_force.settings(), Some(&settings(1, 9)));
    }

    #[test]
    fn no_statement_may_outlive_a_third_of_the_lease() {
        let mut s = settings(1000, 9000);
        assert_eq!(s.statement_limit(), Duration::from_secs(3));
        s.statement_timeout = Some(Duration::from_secs(1));
        assert_eq!(s.statement_limit(), Duration::from_secs(1));
        s.statement_timeout = Some(Duration::from_secs(60));
        s.lock_timeout = Duration::from_secs(60);
        assert_eq!(s.statement_limit(), Duration::from_secs(3));
        assert_eq!(s.lock_limit(), Duration::from_millis(2250));
    }

    #[test]
    fn at_start_a_bad_pair_keeps_the_worker_from_leading_until_a_valid_one_comes() {
        let mut in_force = InForce::default();
        assert!(matches!(in_force.take_up(settings(9, 9)), Change::CannotLead(_)));
        assert_eq!(in_force.settings(), None);
        assert_eq!(in_force.take_up(settings(1, 9)), Change::InForce);
        assert_eq!(in_force.settings(), Some(&settings(1, 9)));
    }

    #[test]
    fn at_reload_a_bad_pair_leaves_the_last_valid_one_and_takes_the_rest() {
        let mut in_force = InForce::default();
        in_force.take_up(settings(1, 9));
        let mut bad = settings(20, 10);
        bad.batch_size = 7;
        assert!(matches!(in_force.take_up(bad), Change::PairKept(_)));
        let kept = in_force.settings().unwrap();
        assert_eq!((kept.interval.as_millis(), kept.lease_duration.as_millis()), (1, 9));
        assert_eq!(kept.batch_size, 7);
    }
}
