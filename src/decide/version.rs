//! The library and the SQL of the extension have a version each, and an upgrade changes one
//! before the other.

/// How the SQL of the extension in a database compares with this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    None,
    /// `ALTER EXTENSION … UPDATE` was not run: all that it had still works.
    SqlOlder,
    /// The server runs an older library: its tables may mean more than the library knows of.
    SqlNewer,
}

/// Compares `sql`, the extension's version, with `library`; both `major.minor.patch`. A version
/// that cannot be read is taken for a newer one.
pub fn skew(sql: &str, library: &str) -> Skew {
    match (parts(sql), parts(library)) {
        (Some(sql), Some(library)) => match sql.cmp(&library) {
            std::cmp::Ordering::Less => Skew::SqlOlder,
            std::cmp::Ordering::Equal => Skew::None,
            std::cmp::Ordering::Greater => Skew::SqlNewer,
        },
        _ => Skew::SqlNewer,
    }
}

fn parts(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(skew("0.2.0", "0.2.0"), Skew::None);
        assert_eq!(skew("0.9.0", "0.10.0"), Skew::SqlOlder);
        assert_eq!(skew("1.0.0", "0.10.3"), Skew::SqlNewer);
    }

    #[test]
    fn a_version_that_cannot_be_read_is_not_trusted() {
        assert_eq!(skew("next", "0.2.0"), Skew::SqlNewer);
        assert_eq!(skew("0.1.0-rc1", "0.2.0"), Skew::SqlNewer);
    }
}
