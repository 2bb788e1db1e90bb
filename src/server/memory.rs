//! What the passes of one table remember from visit to visit.

use super::indexed::By;
use super::statements::Statements;
use super::target::Watched;
use crate::decide::ServerTime;
use crate::decide::progress::Progress;
use crate::decide::quarantine::Quarantine;
use crate::decide::rota::Probes;
use crate::decide::scan::Scan;
use crate::decide::walk::Pace;

/// What the passes of one table remember.
pub struct Memory {
    /// What `progress` is about.
    pub watched: Option<Watched>,
    pub progress: Progress,
    /// The scan for rows that are past their deadline, where no index leads to them.
    pub scan: Scan,
    /// The scan for rows without progress.
    pub stuck: Scan,
    pub pace: Pace,
    /// What index leads with the deadline; `None`: not looked yet.
    pub indexed: Option<By>,
    /// What was due then has had its turn.
    pub cutoff_at: ServerTime,
    /// When the next deadline is asked for.
    pub probes: Probes,
    /// Those of the last visit, with their plans.
    pub statements: Option<Statements>,
    /// Rows that are past their deadline and cannot be reaped; `None`: not read yet.
    pub quarantine: Option<Quarantine>,
    /// Rows without progress that cannot.
    pub stuck_quarantine: Quarantine,
}

impl Memory {
    pub fn new(batch_size: usize) -> Self {
        Memory {
            watched: None,
            progress: Progress::default(),
            scan: Scan::default(),
            stuck: Scan::default(),
            pace: Pace::new(batch_size),
            indexed: None,
            cutoff_at: ServerTime::MIN,
            probes: Probes::default(),
            statements: None,
            quarantine: None,
            stuck_quarantine: Quarantine::default(),
        }
    }

    /// Scans go on at once: a timeout may be another. What is known of the quarantine is read anew,
    /// where somebody may have lent a hand; what is not there any more may lie elsewhere, below the mark.
    pub fn try_again(&mut self) {
        self.scan.hurry();
        self.stuck.hurry();
        if self.quarantine.take().is_some_and(|quarantine| quarantine.len() > 0) {
            self.progress.doubt();
        }
        self.stuck_quarantine = Quarantine::default();
    }

    /// What is due is looked for by another rule than before: a place in the order of one column is
    /// none in that of another.
    pub fn forget(&mut self, watched: &Watched) {
        self.progress = Progress::default();
        self.scan = Scan::default();
        self.indexed = None;
        self.quarantine = None;
        self.watched = Some(watched.clone());
    }
}
