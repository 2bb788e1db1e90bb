//! What the words of a policy stood for when they were given.
//!
//! A policy names its column, and its filter names columns, functions, operators and labels. All of
//! these can be renamed, dropped and made anew, or swapped, and then the same words are about other
//! things: a row that was to be kept would go. So what they stood for is kept beside them, in numbers
//! that no name changes, and a policy whose words stand for something else is not swept.

use std::fmt;

/// Where numbers mean something: a catalogue, and the watched table in it. After a restore, and after
/// `pg_upgrade`, what was kept before says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The system identifier of the server's data.
    pub system: u64,
    /// The OID of the watched table.
    pub relation: u32,
}

/// What the words of one policy stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub origin: Origin,
    /// The number of the column that deadlines are counted from.
    pub column: i16,
    /// A digest of the filter, names resolved.
    pub filter: Option<u64>,
}

/// Which words of a policy: its column, its filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub column: bool,
    pub filter: bool,
}

impl Words {
    pub const NONE: Words = Words { column: false, filter: false };

    /// These but for `others`.
    pub fn without(self, others: Words) -> Words {
        Words { column: self.column && !others.column, filter: self.filter && !others.filter }
    }

    fn but_none(self) -> Option<Words> {
        Some(self).filter(|words| *words != Words::NONE)
    }
}

impl Meaning {
    /// Which words stand for something else `now`. A filter that is no more stands for nothing.
    fn lost(&self, now: &Meaning) -> Words {
        Words {
            column: self.column != now.column,
            filter: now.filter.is_some() && self.filter != now.filter,
        }
    }
}

/// What is kept of a policy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What they stood for when they were given.
    pub meaning: Meaning,
    /// Those that were seen to stand for something else since. Where the numbers mean nothing any more,
    /// it is all that is left of that.
    pub lost: Words,
}

/// As it is written down: `origin column filter`, a filter that is none as `-`, and the words that
/// are lost.
impl fmt::Display for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { system, relation } = self.meaning.origin;
        write!(out, "{system}/{relation} {} ", self.meaning.column)?;
        match self.meaning.filter {
            Some(digest) => write!(out, "{digest:016x}")?,
            None => write!(out, "-")?,
        }
        for (word, lost) in [(COLUMN_LOST, self.lost.column), (FILTER_LOST, self.lost.filter)] {
            if lost {
                write!(out, " {word}")?;
            }
        }
        Ok(())
    }
}

const COLUMN_LOST: &str = "column-lost";
const FILTER_LOST: &str = "filter-lost";

impl From<Meaning> for Kept {
    fn from(meaning: Meaning) -> Kept {
        Kept { meaning, lost: Words::NONE }
    }
}

impl Kept {
    /// What was written down; none if it is nothing of ours.
    pub fn read(text: &str) -> Option<Kept> {
        let mut parts = text.split(' ');
        let (system, relation) = parts.next()?.split_once('/')?;
        let origin = Origin { system: system.parse().ok()?, relation: relation.parse().ok()? };
        let column = parts.next()?.parse().ok()?;
        let filter = match parts.next()? {
            "-" => None,
            digest => Some(u64::from_str_radix(digest, 16).ok()?),
        };
        let mut lost = Words::NONE;
        for word in parts {
            match word {
                COLUMN_LOST => lost.column = true,
                FILTER_LOST => lost.filter = true,
                _ => return None,
            }
        }
        Some(Kept { meaning: Meaning { origin, column, filter }, lost })
    }

    /// Which words are lost now.
    fn lost(&self, now: &Meaning) -> Words {
        match self.meaning.origin == now.origin {
            true => self.meaning.lost(now),
            // Of a filter that is no more nothing is lost.
            false => Words { filter: self.lost.filter && now.filter.is_some(), ..self.lost },
        }
    }

    /// What is to be kept of words that stand for this `now`: what they stood for when they were given,
    /// where that was here and can be compared, and whether they have lost it.
    pub fn held_to(kept: Option<Kept>, now: Meaning) -> Kept {
        match kept {
            Some(kept) if kept.meaning.origin == now.origin || kept.lost(&now) != Words::NONE => {
                Kept { lost: kept.lost(&now), ..kept }
            }
            _ => now.into(),
        }
    }

    /// What is to be kept after some words were `given` anew, which stand for what they do `now`; or
    /// those that were not, and are lost.
    pub fn after(kept: Option<Kept>, now: Meaning, given: Words) -> Result<Kept, Words> {
        let lost = kept.map_or(Words::NONE, |kept| kept.lost(&now));
        lost.without(given).but_none().map_or(Ok(now.into()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = Origin { system: 7_431_000_000_000_000_000, relation: 16_423 };
    const COLUMN: Words = Words { column: true, filter: false };
    const FILTER: Words = Words { column: false, filter: true };
    const BOTH: Words = Words { column: true, filter: true };

    fn meaning(column: i16, filter: Option<u64>) -> Meaning {
        Meaning { origin: HERE, column, filter }
    }

    fn kept(column: i16, filter: Option<u64>) -> Option<Kept> {
        Some(meaning(column, filter).into())
    }

    fn elsewhere(now: Meaning) -> [Meaning; 2] {
        [Origin { system: 1, ..HERE }, Origin { relation: 1, ..HERE }]
            .map(|origin| Meaning { origin, ..now })
    }

    #[test]
    fn what_is_kept_is_read_back() {
        for what in [meaning(3, None), meaning(1, Some(0xabc)), meaning(i16::MAX, Some(u64::MAX))] {
            for lost in [Words::NONE, COLUMN, FILTER, BOTH] {
                let kept = Kept { meaning: what, lost };
                assert_eq!(Kept::read(&kept.to_string()), Some(kept), "{kept}");
            }
        }
        for nothing in ["", "7/1", "7/1 2", "7/1 2 x", "7 1 2 -", "7/1 2 - ", "7/1 2 - -"] {
            assert_eq!(Kept::read(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_word_that_stands_for_something_else_is_lost() {
        let lost = |now| Kept::held_to(kept(3, Some(1)), now).lost;
        assert_eq!(lost(meaning(3, Some(1))), Words::NONE);
        assert_eq!(lost(meaning(4, Some(1))), COLUMN);
        assert_eq!(lost(meaning(3, Some(2))), FILTER);
        assert_eq!(lost(meaning(4, Some(2))), BOTH);
        assert_eq!(lost(meaning(3, None)), Words::NONE);
        // Somebody wrote it into the table.
        assert_eq!(Kept::held_to(kept(3, None), meaning(3, Some(1))).lost, FILTER);
    }

    #[test]
    fn it_is_found_again_where_it_was_lost() {
        let given = kept(3, Some(1));
        let lost = Kept::held_to(given, meaning(3, Some(2)));
        assert_eq!(Some(Kept { lost: Words::NONE, ..lost }), given);
        assert_eq!(Some(Kept::held_to(Some(lost), meaning(3, Some(1)))), given);
    }

    #[test]
    fn what_was_kept_elsewhere_says_nothing() {
        for now in elsewhere(meaning(9, Some(9))) {
            assert_eq!(Kept::held_to(kept(3, Some(1)), now), now.into());
            assert_eq!(Kept::after(kept(3, Some(1)), now, Words::NONE), Ok(now.into()));
        }
    }

    #[test]
    fn but_what_was_lost_there_is_lost_here_too_until_it_is_given_anew() {
        let lost = Some(Kept::held_to(kept(3, Some(1)), meaning(3, Some(2))));
        for now in elsewhere(meaning(3, Some(2))) {
            assert_eq!(Some(Kept::held_to(lost, now)), lost);
            assert_eq!(Kept::after(lost, now, COLUMN), Err(FILTER));
            assert_eq!(Kept::after(lost, now, FILTER), Ok(now.into()));
            let none = Meaning { filter: None, ..now };
            assert_eq!(Kept::held_to(lost, none), none.into());
        }
    }

    #[test]
    fn only_what_is_given_anew_may_stand_for_something_else() {
        let (kept, now) = (kept(3, Some(1)), meaning(4, Some(2)));
        assert_eq!(Kept::after(kept, now, Words::NONE), Err(BOTH));
        assert_eq!(Kept::after(kept, now, COLUMN), Err(FILTER));
        assert_eq!(Kept::after(kept, now, FILTER), Err(COLUMN));
        assert_eq!(Kept::after(kept, now, BOTH), Ok(now.into()));
        assert_eq!(Kept::after(None, now, Words::NONE), Ok(now.into()));
    }
}
