//! What an error of a batch is the fault of, told by its SQLSTATE.

/// What must change before the batch can go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One of its rows: without that one the others go through.
    Row,
    /// The table, a function of it, or the server: no row of it would go through.
    Table,
    /// It took too long, or was cancelled by hand: fewer rows may go through.
    Time,
    /// Somebody else's lock.
    Lock,
    /// Somebody else has changed a row meanwhile, or moved it to another partition.
    Change,
}

/// Classes of SQLSTATEs that say nothing of a row: connections, transactions, cursors, roles and
/// names that do not work, the server's configuration, resources and insides, other servers.
const OF_THE_TABLE: [&str; 24] = [
    "03", "08", "0A", "0B", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F", "40", "42",
    "53", "55", "57", "58", "72", "F0", "HV", "XX",
];

/// Sorts an error. A trigger may raise any code, an application's own too: those are taken to be
/// about the row that it was called for.
pub fn fault(sqlstate: &str) -> Fault {
    let class = &sqlstate[..sqlstate.len().min(2)];
    match sqlstate {
        "57014" => Fault::Time,
        "55P03" | "40P01" => Fault::Lock,
        "40001" => Fault::Change,
        _ if OF_THE_TABLE.contains(&class) => Fault::Table,
        _ => Fault::Row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trigger_or_a_constraint_raises_is_the_fault_of_a_row() {
        for code in
            ["P0001", "P0004", "23503", "23001", "23514", "22012", "27000", "54000", "U0001"]
        {
            assert_eq!(fault(code), Fault::Row, "{code}");
        }
    }

    #[test]
    fn what_no_row_could_escape_is_the_fault_of_the_table() {
        for code in [
            "42501", "42703", "42P01", "25006", "53100", "XX000", "XX001", "HV000", "0A000",
            "08006",
        ] {
            assert_eq!(fault(code), Fault::Table, "{code}");
        }
    }

    #[test]
    fn timeouts_and_locks_are_neither() {
        assert_eq!(fault("57014"), Fault::Time);
        assert_eq!((fault("55P03"), fault("40P01")), (Fault::Lock, Fault::Lock));
        assert_eq!((fault("40001"), fault("57P01")), (Fault::Change, Fault::Table));
    }
}
