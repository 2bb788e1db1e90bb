//! Due rows as they were read, some of them ahead of their turn.

use super::ServerTime;

/// Where a row version lies: block and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    pub block: u32,
    pub offset: u16,
}

impl Tid {
    /// Before every row: offsets count from 1.
    pub const FIRST: Tid = Tid { block: 0, offset: 0 };
    /// After every row.
    pub const LAST: Tid = Tid { block: u32::MAX, offset: u16::MAX };
}

/// A due row, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub deadline: ServerTime,
    pub tid: Tid,
}

/// Rows that were read ahead, and wait for their turn. A pass that is cut short keeps them: to read
/// them may have taken longer than its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    rows: Vec<Due>,
    taken: usize,
    /// What comes after them.
    pub then: Then,
}

/// What comes after rows that were read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// There may be more of their kind.
    More,
    /// They were the last of this deadline.
    Past(ServerTime),
    /// They were the last.
    End,
}

impl Ahead {
    pub fn new(rows: Vec<Due>, then: Then) -> Ahead {
        Ahead { rows, taken: 0, then }
    }

    /// Leaves out those that are `held`; returns how many.
    pub fn leave_out(&mut self, held: impl Fn(&Due) -> bool) -> usize {
        let before = self.rows.len();
        self.rows.retain(|row| !held(row));
        before - self.rows.len()
    }

    /// The next rows, `most` at the most.
    pub fn next(&self, most: usize) -> &[Due] {
        let rest = &self.rows[self.taken..];
        &rest[..most.min(rest.len())]
    }

    /// Takes the next `most`, which get their turn.
    pub fn take(&mut self, most: usize) -> &[Due] {
        let taken = self.taken;
        self.taken = self.rows.len().min(taken + most);
        &self.rows[taken..self.taken]
    }
}
