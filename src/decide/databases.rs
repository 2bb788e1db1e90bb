//! Which databases get a worker: `pg_reaper.databases`.

use thiserror::Error;

/// What `pg_reaper.databases` allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// `*`: every one.
    All,
    /// Those with these names; none for an empty list.
    Named(Vec<String>),
}

/// A list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error("a quoted name is not closed")]
    Unclosed,
    #[error("a name is missing between two commas")]
    Empty,
    #[error("something follows a quoted name")]
    Trailing,
}

impl Databases {
    /// Reads a list: names separated by commas, in double quotes where they hold commas, blanks
    /// at an end, or a star. Names are taken as they are written, capitals and all.
    pub fn read(setting: &str) -> Result<Databases, Unreadable> {
        let (mut names, mut all) = (Vec::new(), false);
        let mut rest = setting.trim();
        if rest.is_empty() {
            return Ok(Databases::Named(names));
        }
        loop {
            let (name, quoted, after) = item(rest)?;
            if name.is_empty() {
                return Err(Unreadable::Empty);
            }
            all |= name == "*" && !quoted;
            names.push(name);
            match after.strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if after.is_empty() => break,
                None => return Err(Unreadable::Trailing),
            }
        }
        Ok(if all { Databases::All } else { Databases::Named(names) })
    }

    /// Whether a database of this name gets a worker.
    pub fn allow(&self, name: &str) -> bool {
        match self {
            Databases::All => true,
            Databases::Named(names) => names.iter().any(|named| named == name),
        }
    }
}

/// The first name of a list, whether it was quoted, and what follows it.
fn item(list: &str) -> Result<(String, bool, &str), Unreadable> {
    let Some(mut rest) = list.strip_prefix('"') else {
        let (name, _) = list.split_once(',').unwrap_or((list, ""));
        return Ok((name.trim_end().into(), false, &list[name.len()..]));
    };
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or(Unreadable::Unclosed)?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Ok((name, true, after.trim_start())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Result<Databases, Unreadable> {
        Ok(Databases::Named(names.iter().map(|&name| name.into()).collect()))
    }

    #[test]
    fn a_list_is_read_as_it_is_written() {
        assert_eq!(Databases::read("*"), Ok(Databases::All));
        assert_eq!(Databases::read(""), named(&[]));
        assert_eq!(Databases::read("app"), named(&["app"]));
        assert_eq!(Databases::read(" app , My App,x "), named(&["app", "My App", "x"]));
        assert_eq!(Databases::read("a, *"), Ok(Databases::All));
    }

    #[test]
    fn quotes_hold_what_would_mean_something_else() {
        assert_eq!(
            Databases::read(r#""a,b" , "*", "say ""hi""""#),
            named(&["a,b", "*", r#"say "hi""#])
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(Databases::read("a,,b"), Err(Unreadable::Empty));
        assert_eq!(Databases::read("a,"), Err(Unreadable::Empty));
        assert_eq!(Databases::read(r#""a"#), Err(Unreadable::Unclosed));
        assert_eq!(Databases::read(r#""a"b"#), Err(Unreadable::Trailing));
        assert_eq!(Databases::read(r#""""#), Err(Unreadable::Empty));
    }

    #[test]
    fn a_name_is_allowed_as_a_whole() {
        let two = Databases::read("app,other").unwrap();
        assert!(two.allow("app") && two.allow("other"));
        assert!(!two.allow("ap") && !two.allow("App"));
        assert!(Databases::All.allow("anything"));
        assert!(!Databases::read("").unwrap().allow(""));
    }
}
