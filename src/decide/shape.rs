//! Whether a table follows the barrier protocol, from what its columns are.

use super::refusal::Refusal;

/// A column as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type's name in the catalogue.
    pub type_name: String,
}

/// Which of the optional columns of the protocol a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub organization_id: bool,
    pub remaining: bool,
    pub last_progress_at: bool,
}

const TIMESTAMPTZ: &str = "timestamptz";

impl Shape {
    /// The shape of `relation`, or why it does not follow the protocol. An optional column of
    /// another type is not used, as if it were not there.
    pub fn of(relation: &str, columns: &[Column]) -> Result<Shape, Refusal> {
        let type_of = |name: &str| {
            columns.iter().find(|column| column.name == name).map(|column| &*column.type_name)
        };
        for (column, wanted) in [("execution_id", "text"), ("expires_at", TIMESTAMPTZ)] {
            match type_of(column) {
                Some(found) if found == wanted => {}
                Some(found) => {
                    return Err(Refusal::WrongType {
                        relation: relation.into(),
                        column,
                        found: found.into(),
                        wanted,
                    });
                }
                None => {
                    return Err(Refusal::NoColumn { relation: relation.into(), column, wanted });
                }
            }
        }
        Ok(Shape {
            organization_id: type_of("organization_id") == Some("text"),
            remaining: matches!(type_of("remaining"), Some("int4" | "int8" | "int2")),
            last_progress_at: type_of("last_progress_at") == Some(TIMESTAMPTZ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(list: &[(&str, &str)]) -> Vec<Column> {
        list.iter().map(|(n, t)| Column { name: (*n).into(), type_name: (*t).into() }).collect()
    }

    #[test]
    fn the_two_columns_of_the_protocol_are_enough() {
        let table = columns(&[("execution_id", "text"), ("expires_at", TIMESTAMPTZ)]);
        assert_eq!(Shape::of("t", &table), Ok(Shape::default()));
    }

    #[test]
    fn optional_columns_count_only_with_their_type() {
        let mut table = columns(&[
            ("execution_id", "text"),
            ("expires_at", TIMESTAMPTZ),
            ("organization_id", "uuid"),
            ("remaining", "int4"),
            ("last_progress_at", TIMESTAMPTZ),
        ]);
        let shape = Shape { organization_id: false, remaining: true, last_progress_at: true };
        assert_eq!(Shape::of("t", &table), Ok(shape));
        table[2].type_name = "text".into();
        table[3].type_name = "text".into();
        let shape = Shape { organization_id: true, remaining: false, last_progress_at: true };
        assert_eq!(Shape::of("t", &table), Ok(shape));
    }

    #[test]
    fn a_missing_or_mistyped_deadline_is_refused_by_name() {
        let missing = Shape::of("t", &columns(&[("execution_id", "text")])).unwrap_err();
        assert!(missing.to_string().contains("expires_at"), "{missing}");
        let table = columns(&[("execution_id", "uuid"), ("expires_at", TIMESTAMPTZ)]);
        let wrong = Shape::of("t", &table).unwrap_err();
        assert!(wrong.to_string().contains("execution_id"), "{wrong}");
        assert!(wrong.to_string().contains("uuid"), "{wrong}");
    }
}
