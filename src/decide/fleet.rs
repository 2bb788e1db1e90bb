//! Which databases have a worker, and which one gets the next: the launcher's decisions.
//!
//! Only a worker that has connected can tell whether a database has the extension, so the first
//! worker of a database is a probe: it stays where there is work, and leaves at once where there
//! is none. `CREATE EXTENSION` announces itself; what came in by another road (`COMMIT PREPARED`,
//! a restored base) is found by an audit, one database a minute.
//!
//! Where there are fewer worker slots than databases, they take turns: the database that has
//! waited longest is next, and the worker that has served longest makes room for it.

use super::Ticks;
use super::schedule::{LONGEST_BACKOFF, backoff};
use std::collections::BTreeMap;
use std::time::Duration;

/// A database, by its OID.
pub type DatabaseId = u32;

/// How soon a worker that has served is started afresh, and a full server asked again.
const RESTART: Duration = Duration::from_secs(1);

/// How often a database without the extension is looked into, the one longest ago each time.
const AUDIT: Duration = Duration::from_secs(60);

/// How many workers may be starting at once. One that takes longer than a second is not counted:
/// it waits for a lock on its database, and must not keep the others waiting.
const STARTS_AT_ONCE: usize = 2;

/// What a worker that is gone had found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    NoExtension,
    /// It left as it was told to.
    Left,
    /// It served, and ended.
    Ended,
    /// It never got as far as to serve.
    Failed,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A worker did not start, for the first time in a row.
    Failing { name: String, next_try: Duration },
    /// It serves, after so many failures in a row.
    Recovered { name: String, failures: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Post {
    Vacant,
    Ordered(Ticks),
    Serving { since: Ticks, leaving: bool },
}

/// A place in the queue for workers, or in the order of their starts: the lower, the longer ago.
type Place = u64;

#[derive(Clone, Debug)]
struct Member {
    name: String,
    post: Post,
    /// Not known before a worker has looked.
    has_extension: Option<bool>,
    looked_at: Ticks,
    failures: u32,
    /// When a worker may be started.
    next_try: Ticks,
    /// When its worker came or went, in the order of all that did.
    place: Place,
    /// Somebody called `pg_reaper_stop()`.
    stopped: bool,
    /// The extension was announced while a worker was there, which may have looked before.
    announced: bool,
}

/// The databases that may have a worker.
#[derive(Debug, Default)]
pub struct Fleet {
    members: BTreeMap<DatabaseId, Member>,
    /// There are fewer worker slots than databases that want one.
    crowded: bool,
    /// When to ask for a slot again, if none is given back before.
    ask_again: Ticks,
    next_audit: Ticks,
    last_place: Place,
}

impl Fleet {
    /// Takes up which databases there are now that may have a worker.
    pub fn census(&mut self, now: Ticks, present: &[(DatabaseId, String)]) {
        self.members.retain(|id, _| present.iter().any(|(other, _)| other == id));
        for (id, name) in present {
            let member = self.members.entry(*id).or_insert_with(|| {
                self.last_place += 1;
                Member {
                    name: String::new(),
                    post: Post::Vacant,
                    has_extension: None,
                    looked_at: Ticks::ZERO,
                    failures: 0,
                    next_try: now,
                    place: self.last_place,
                    stopped: false,
                    announced: false,
                }
            });
            member.name.clone_from(name);
        }
    }

    /// Whether a database may have a worker.
    pub fn knows(&self, id: DatabaseId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.stopped)
    }

    /// `pg_reaper_stop()` or `pg_reaper_start()` was called there.
    pub fn stop(&mut self, id: DatabaseId, stopped: bool) {
        if let Some(member) = self.members.get_mut(&id) {
            member.stopped = stopped;
        }
    }

    /// Somebody says that the extension may be there now, or that a start is wanted.
    pub fn announce(&mut self, now: Ticks, id: DatabaseId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.has_extension = None;
            member.failures = 0;
            member.next_try = now;
            member.announced = member.post != Post::Vacant;
        }
    }

    /// Any database may have the extension now, but those in `known`, which have a worker.
    pub fn announce_all(&mut self, now: Ticks, known: &[DatabaseId]) {
        let ids: Vec<_> = self.members.keys().filter(|id| !known.contains(id)).copied().collect();
        ids.into_iter().for_each(|id| self.announce(now, id));
    }

    /// A worker of this database is on its way.
    pub fn ordered(&mut self, now: Ticks, id: DatabaseId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.post = Post::Ordered(now);
        }
    }

    /// A worker that somebody else has ordered may still come.
    pub fn expected(&mut self, now: Ticks, id: DatabaseId) {
        if self.members.get(&id).is_some_and(|member| member.post == Post::Vacant) {
            self.ordered(now, id);
        }
    }

    /// Its worker serves.
    pub fn serves(&mut self, now: Ticks, id: DatabaseId) -> Option<News> {
        let member = self.members.get_mut(&id)?;
        if matches!(member.post, Post::Serving { .. }) {
            return None;
        }
        self.last_place += 1;
        member.place = self.last_place;
        member.post = Post::Serving { since: now, leaving: false };
        member.has_extension = Some(true);
        member.announced = false;
        let failures = std::mem::take(&mut member.failures);
        (failures > 0).then(|| News::Recovered { name: member.name.clone(), failures })
    }

    /// Its worker is gone. `jitter`, between 0 and 1, keeps failing starts apart.
    pub fn gone(
        &mut self,
        now: Ticks,
        id: DatabaseId,
        outcome: Outcome,
        jitter: f64,
    ) -> Option<News> {
        let member = self.members.get_mut(&id)?;
        if member.post != Post::Vacant {
            self.last_place += 1;
            member.place = self.last_place;
        }
        member.post = Post::Vacant;
        member.looked_at = now;
        self.ask_again = now;
        match outcome {
            Outcome::NoExtension => {
                let announced = std::mem::take(&mut member.announced);
                member.has_extension = if announced { None } else { Some(false) };
                member.failures = 0;
            }
            Outcome::Left => member.next_try = now,
            Outcome::Ended => member.next_try = now + RESTART,
            Outcome::Failed => {
                member.failures = member.failures.saturating_add(1);
                let wait = backoff(member.failures, RESTART, LONGEST_BACKOFF);
                let wait = wait.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0));
                member.next_try = now + wait;
                if member.failures == 1 {
                    return Some(News::Failing { name: member.name.clone(), next_try: wait });
                }
            }
        }
        None
    }

    /// The database whose worker is to be started now.
    pub fn next(&mut self, now: Ticks) -> Option<DatabaseId> {
        if now < self.may_start(now) {
            return None;
        }
        if now >= self.next_audit {
            self.next_audit = now + AUDIT;
            let without = self.members.values_mut().filter(|m| m.has_extension == Some(false));
            if let Some(member) = without.min_by_key(|member| member.looked_at)
                && member.looked_at + AUDIT <= now
            {
                member.has_extension = None;
            }
        }
        self.members
            .iter()
            .filter(|(_, member)| member.wants_a_worker() && member.next_try <= now)
            .min_by_key(|(_, member)| member.place)
            .map(|(id, _)| *id)
    }

    /// No worker slot was free for the next one: whose worker is to make room for it, after a turn
    /// of `turn`. True when that was not so before.
    pub fn no_slot(&mut self, now: Ticks, turn: Duration) -> (Option<DatabaseId>, bool) {
        let news = !std::mem::replace(&mut self.crowded, true);
        self.ask_again = now + RESTART.min(turn);
        let leaving = |member: &Member| matches!(member.post, Post::Serving { leaving: true, .. });
        if self.members.values().any(leaving) {
            return (None, news);
        }
        let served = |member: &Member| match member.post {
            Post::Serving { since, .. } if since + turn <= now => Some(since),
            _ => None,
        };
        let longest = self
            .members
            .iter_mut()
            .filter_map(|(id, member)| served(member).map(|since| (since, id, member)))
            .min_by_key(|(.., member)| member.place);
        let longest = longest.map(|(since, id, member)| {
            member.post = Post::Serving { since, leaving: true };
            *id
        });
        (longest, news)
    }

    /// True once, when nobody waits for a worker slot any more.
    pub fn relieved(&mut self) -> bool {
        self.waiting() == 0 && std::mem::replace(&mut self.crowded, false)
    }

    /// How many databases wait for a worker slot.
    pub fn waiting(&self) -> usize {
        self.members.values().filter(|member| member.wants_a_worker()).count()
    }

    /// When the next worker may be started, whosever it is.
    fn may_start(&self, now: Ticks) -> Ticks {
        let starting = |member: &Member| match member.post {
            Post::Ordered(since) => Some(since + RESTART).filter(|&until| now < until),
            _ => None,
        };
        let starting: Vec<_> = self.members.values().filter_map(starting).collect();
        match starting.iter().min() {
            Some(&first) if starting.len() >= STARTS_AT_ONCE => first.max(self.ask_again),
            _ => self.ask_again,
        }
    }

    /// When there is something to do, if nothing happens before.
    pub fn wake(&self, now: Ticks) -> Ticks {
        let wanted = self.members.values().filter(|member| member.wants_a_worker());
        let next = wanted.map(|member| member.next_try).min().unwrap_or(Ticks::MAX);
        next.max(self.may_start(now)).min(self.next_audit)
    }
}

impl Member {
    fn wants_a_worker(&self) -> bool {
        self.post == Post::Vacant && self.has_extension != Some(false) && !self.stopped
    }
}

#[cfg(test)]
mod tests;
