//! What each worker tells about itself, in shared memory.
//!
//! Counters outlive a worker that ends and is started afresh; a crash of the server clears them.

use super::clock::server_now;
use super::{board, roster};
use crate::decide::ServerTime;

/// How many workers can tell.
pub const SLOTS: usize = 64;

/// How many tables of a database can be to blame. Of more, those are forgotten that were longest ago.
const BLAMES: usize = 8;

/// Text of bounded length, as shared memory needs it. Longer text is cut at a character.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: u16,
}

impl<const N: usize> Text<N> {
    const EMPTY: Self = Text { bytes: [0; N], len: 0 };

    pub fn new(text: &str) -> Self {
        let len = text.floor_char_boundary(N.min(usize::from(u16::MAX)));
        let mut bytes = [0; N];
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Text { bytes, len: len as u16 }
    }

    /// `None` while it is empty.
    pub fn get(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]);
        (self.len > 0).then(|| text.into_owned())
    }
}

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Leader,
    Standby,
    Disabled,
    Misconfigured,
    /// The SQL of the extension is newer than the library.
    Outdated,
    /// It ended, and has not been started afresh yet.
    Down,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Leader => "leader",
            State::Standby => "standby",
            State::Disabled => "disabled",
            State::Misconfigured => "misconfigured",
            State::Outdated => "outdated",
            State::Down => "down",
        }
    }
}

/// One worker. Times are those of the server's clock; 0 stands for never.
#[derive(Clone, Copy)]
pub struct Slot {
    /// 0: nobody uses the slot, or its worker is down.
    pub pid: i32,
    pub database_oid: u32,
    pub database: Text<64>,
    pub state: State,
    pub leader: Text<192>,
    /// 0: none.
    pub term: i64,
    pub started_at: ServerTime,
    pub last_cycle: ServerTime,
    pub last_sweep: ServerTime,
    pub rows_reaped: i64,
    pub errors: i64,
    pub failures_in_a_row: i32,
    pub last_error: Text<512>,
    pub last_error_at: ServerTime,
    /// Tables whose functions brought workers to their end.
    pub blames: [Blame; BLAMES],
    /// The table of the last one; 0: the worker that came after has taken note of it.
    pub blamed: u32,
}

/// A watched table with a function, of its own or of a leaf's, that brought workers to their end.
#[derive(Clone, Copy)]
pub struct Blame {
    /// 0: none.
    pub root: u32,
    /// Where that happened last: the table itself, or a leaf.
    pub relation: u32,
    /// How often it has happened since it last went well there.
    pub times: u32,
    /// When it happened last.
    pub at: ServerTime,
}

impl Blame {
    const NONE: Blame = Blame { root: 0, relation: 0, times: 0, at: 0 };
}

impl Slot {
    pub const EMPTY: Slot = Slot {
        pid: 0,
        database_oid: 0,
        database: Text::EMPTY,
        state: State::Down,
        leader: Text::EMPTY,
        term: 0,
        started_at: 0,
        last_cycle: 0,
        last_sweep: 0,
        rows_reaped: 0,
        errors: 0,
        failures_in_a_row: 0,
        last_error: Text::EMPTY,
        last_error_at: 0,
        blames: [Blame::NONE; BLAMES],
        blamed: 0,
    };
}

/// A worker's place on the board.
pub struct Place {
    slot: Option<usize>,
}

impl Place {
    /// Takes the slot of the database's worker that is down, with its counters, or a free one.
    /// Without any the worker works all the same, and cannot be seen. All that makes it another
    /// worker changes at once: nobody sees its pid beside the leader id of the one before.
    pub fn take(
        pid: i32,
        database_oid: u32,
        database: &str,
        leader: &str,
        now: ServerTime,
    ) -> Place {
        let taken = board::change(|board| {
            let slots = &mut board.slots;
            let n = slots
                .iter()
                .position(|slot| slot.pid == 0 && slot.database_oid == database_oid)
                .or_else(|| slots.iter().position(|slot| slot.pid == 0 && slot.database_oid == 0))
                .or_else(|| slots.iter().position(|slot| slot.pid == 0))?;
            if slots[n].database_oid != database_oid {
                slots[n] = Slot::EMPTY;
            }
            slots[n].pid = pid;
            slots[n].database_oid = database_oid;
            slots[n].database = Text::new(database);
            slots[n].state = State::Starting;
            slots[n].leader = Text::new(leader);
            slots[n].started_at = now;
            Some(n)
        });
        Place { slot: taken.flatten() }
    }

    /// Changes what is told.
    pub fn tell(&self, change: impl FnOnce(&mut Slot)) {
        if let Some(n) = self.slot {
            board::change(|board| change(&mut board.slots[n]));
        }
    }

    /// The worker is gone; where it found the extension dropped, there is nothing left to tell.
    pub fn leave(&self, for_good: bool) {
        self.tell(|slot| {
            if for_good {
                *slot = Slot::EMPTY;
            }
            slot.pid = 0;
            slot.state = State::Down;
            slot.term = 0;
        });
    }

    /// Tells of an error.
    pub fn tell_error(&self, message: &str, sqlstate: &str) {
        let text = Text::new(&format!("{message} (SQLSTATE {sqlstate})"));
        let now = server_now();
        self.tell(|slot| {
            slot.errors += 1;
            slot.last_error = text;
            slot.last_error_at = now;
        });
    }

    /// Tells that a function of `relation`, the watched table `root` or a leaf of it, brought this
    /// worker to its end.
    pub fn blame(&self, root: u32, relation: u32, message: &str) {
        let at = server_now();
        self.tell(|slot| {
            slot.blamed = root;
            let known = slot.blames.iter().position(|blame| blame.root == root);
            let place = match known {
                Some(n) => &mut slot.blames[n],
                // The oldest, or one that is free.
                None => {
                    let Some(oldest) = slot.blames.iter_mut().min_by_key(|blame| blame.at) else {
                        return;
                    };
                    *oldest = Blame::NONE;
                    oldest
                }
            };
            *place = Blame { root, relation, times: place.times.saturating_add(1), at };
        });
        self.tell_error(message, "57P01");
    }

    /// What was said of `root` does not hold any more.
    pub fn clear(&self, root: u32) {
        self.tell(|slot| {
            slot.blames.iter_mut().filter(|b| b.root == root).for_each(|b| *b = Blame::NONE);
        });
    }

    /// Whether the next worker will know what is told here.
    pub fn lasts(&self) -> bool {
        self.slot.is_some()
    }

    /// What is told now.
    pub fn told(&self) -> Slot {
        self.slot.and_then(|n| board::read(|board| board.slots[n])).unwrap_or(Slot::EMPTY)
    }
}

/// The workers of the server: those that live, and where a database has none, the one that is
/// down.
pub fn all() -> Vec<Slot> {
    let slots = board::read(|board| board.slots.to_vec()).unwrap_or_default();
    let lives = |database| slots.iter().any(|slot| slot.pid != 0 && slot.database_oid == database);
    let mut shown: Vec<Slot> = Vec::new();
    for slot in slots.iter().filter(|slot| slot.database_oid != 0) {
        let told = shown.iter().any(|other| other.database_oid == slot.database_oid);
        if slot.pid != 0 || !(told || lives(slot.database_oid)) {
            shown.push(*slot);
        }
    }
    shown
}

/// Has every worker look up.
pub fn wake_all() {
    let slots = board::read(|board| board.slots.to_vec()).unwrap_or_default();
    slots.iter().filter(|slot| slot.pid != 0).for_each(|slot| roster::wake(slot.pid));
}

/// Forgets what was told of databases that are gone.
pub fn retain(exists: impl Fn(u32) -> bool) {
    board::change(|board| {
        for slot in board.slots.iter_mut().filter(|slot| slot.pid == 0) {
            if slot.database_oid != 0 && !exists(slot.database_oid) {
                *slot = Slot::EMPTY;
            }
        }
    });
}
