//! What to tell an operator about an error that PostgreSQL gave no hint for.

/// A hint for a failed sweep, from its SQLSTATE: a whole sentence.
pub fn hint(sqlstate: &str) -> &'static str {
    match (sqlstate, &sqlstate[..sqlstate.len().min(2)]) {
        ("57014", _) => {
            "The batch ran into pg_reaper.statement_timeout, or was cancelled; look for a slow or \
             blocked trigger on the table."
        }
        ("55P03", _) => {
            "Another session holds a lock on the table, for longer than pg_reaper.lock_timeout."
        }
        ("42501", _) => {
            "Rows are deleted as the owner of the table, in a security-restricted operation: see \
             what the owner, or a trigger of theirs, may not do."
        }
        ("42P01" | "42703", _) => {
            "A table or column was dropped or renamed; put it back, or end the policy with \
             pg_reaper_drop_policy()."
        }
        ("23503", _) => {
            "Rows of another table refer to the row; let that key cascade, or delete them first."
        }
        (_, "40") => "The batch met a concurrent transaction and will be tried again.",
        (_, "53") => "The server is short of a resource; see the message.",
        _ => "The batch was rolled back; mend what the message names, and it will be tried again.",
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn each_kind_of_error_has_its_own_advice_and_none_is_without() {
        assert!(hint("57014").contains("statement_timeout"));
        assert!(hint("40P01").contains("concurrent"));
        assert!(hint("P0001").contains("rolled back"));
        assert!(!hint("").is_empty());
    }
}
