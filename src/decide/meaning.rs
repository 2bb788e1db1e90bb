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

/// One of a policy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Column,
    Filter,
}

/// As it is kept: `origin column filter`, a filter that is none as `-`.
impl fmt::Display for Meaning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { system, relation } = self.origin;
        write!(out, "{system}/{relation} {} ", self.column)?;
        match self.filter {
            Some(digest) => write!(out, "{digest:016x}"),
            None => write!(out, "-"),
        }
    }
}

impl Meaning {
    /// What was kept; none if it is nothing of ours.
    pub fn kept(text: &str) -> Option<Meaning> {
        let mut parts = text.split(' ');
        let (system, relation) = parts.next()?.split_once('/')?;
        let origin = Origin { system: system.parse().ok()?, relation: relation.parse().ok()? };
        let column = parts.next()?.parse().ok()?;
        let filter = match parts.next()? {
            "-" => None,
            digest => Some(u64::from_str_radix(digest, 16).ok()?),
        };
        parts.next().is_none().then_some(Meaning { origin, column, filter })
    }

    /// Whether this was kept of the same table of the same catalogue, so that it can be compared.
    pub fn tells_of(&self, now: &Meaning) -> bool {
        self.origin == now.origin
    }

    /// Which word stands for something else `now` than when this was kept. A filter that is no more
    /// stands for nothing.
    pub fn lost(&self, now: &Meaning) -> Option<Word> {
        if !self.tells_of(now) {
            return None;
        }
        if self.column != now.column {
            return Some(Word::Column);
        }
        (now.filter.is_some() && self.filter != now.filter).then_some(Word::Filter)
    }

    /// What is to be kept after some `words` were given anew, which stand for what they do `now`: or
    /// the word that was not, and stands for something else.
    pub fn after(kept: Option<Meaning>, now: Meaning, words: &[Word]) -> Result<Meaning, Word> {
        let lost = kept.and_then(|kept| {
            let column = if words.contains(&Word::Column) { now.column } else { kept.column };
            let filter = if words.contains(&Word::Filter) { now.filter } else { kept.filter };
            Meaning { column, filter, ..kept }.lost(&now)
        });
        lost.map_or(Ok(now), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = Origin { system: 7_431_000_000_000_000_000, relation: 16_423 };

    fn meaning(column: i16, filter: Option<u64>) -> Meaning {
        Meaning { origin: HERE, column, filter }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        for what in [meaning(3, None), meaning(1, Some(0xabc)), meaning(i16::MAX, Some(u64::MAX))] {
            assert_eq!(Meaning::kept(&what.to_string()), Some(what), "{what}");
        }
        for nothing in ["", "7/1", "7/1 2", "7/1 2 x", "7 1 2 -", "7/1 2 - ", "7/1 2 - -"] {
            assert_eq!(Meaning::kept(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_word_that_stands_for_something_else_is_lost() {
        let kept = meaning(3, Some(1));
        assert_eq!(kept.lost(&meaning(3, Some(1))), None);
        assert_eq!(kept.lost(&meaning(4, Some(1))), Some(Word::Column));
        assert_eq!(kept.lost(&meaning(3, Some(2))), Some(Word::Filter));
        assert_eq!(kept.lost(&meaning(3, None)), None);
        // Somebody wrote it into the table.
        assert_eq!(meaning(3, None).lost(&meaning(3, Some(1))), Some(Word::Filter));
    }

    #[test]
    fn what_was_kept_elsewhere_says_nothing() {
        let kept = meaning(3, Some(1));
        for origin in [Origin { system: 1, ..HERE }, Origin { relation: 1, ..HERE }] {
            let now = Meaning { origin, column: 9, filter: Some(9) };
            assert_eq!(kept.lost(&now), None);
            assert_eq!(Meaning::after(Some(kept), now, &[]), Ok(now));
        }
    }

    #[test]
    fn only_what_is_given_anew_may_stand_for_something_else() {
        let (kept, now) = (meaning(3, Some(1)), meaning(4, Some(2)));
        assert_eq!(Meaning::after(Some(kept), now, &[]), Err(Word::Column));
        assert_eq!(Meaning::after(Some(kept), now, &[Word::Column]), Err(Word::Filter));
        assert_eq!(Meaning::after(Some(kept), now, &[Word::Filter]), Err(Word::Column));
        assert_eq!(Meaning::after(Some(kept), now, &[Word::Column, Word::Filter]), Ok(now));
        assert_eq!(Meaning::after(None, now, &[]), Ok(now));
    }
}
