//! By what the rows of a table are due, as SQL.
//!
//! A pass moves along the index of one column, so it thinks in *keys*: values of that column, as
//! microseconds. Where something is added to the column (a `ttl`, the end of a day, a time zone),
//! the cutoff is carried over to a key by taking the same off. Calendar arithmetic does not always
//! come back to where it started (the 31st and a month, the hour that a clock is set back), so
//! there a row must be past its deadline by both ways of counting: it may go late, never early.

use super::ServerTime;

/// The type of a column that deadlines are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Timestamptz,
    /// Local time in the policy's time zone.
    Timestamp,
    /// A day in the policy's time zone: it expires at its end.
    Date,
}

impl ColumnType {
    /// By the type's name in the catalogue.
    pub fn of(type_name: &str) -> Option<ColumnType> {
        match type_name {
            "timestamptz" => Some(ColumnType::Timestamptz),
            "timestamp" => Some(ColumnType::Timestamp),
            "date" => Some(ColumnType::Date),
            _ => None,
        }
    }

    /// The type's name in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Timestamptz => "timestamptz",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Date => "date",
        }
    }
}

const DAY: i64 = 24 * 3_600 * 1_000_000;

/// A day, counted from 2000-01-01 as `date` does, as a key: its start.
pub fn key_of_day(day: i32) -> ServerTime {
    match day {
        i32::MIN => i64::MIN,
        i32::MAX => i64::MAX,
        day => i64::from(day).saturating_mul(DAY),
    }
}

/// The day that a key of a `date` column stands for.
pub fn day_of_key(key: ServerTime) -> i32 {
    match key {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        key => i32::try_from(key.div_euclid(DAY)).unwrap_or(i32::MAX),
    }
}

/// How the deadline of a row follows from its columns. All parts are SQL already: quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The column, an identifier.
    pub column: String,
    pub column_type: ColumnType,
    /// What is added to it, a literal of type `interval`.
    pub ttl: Option<String>,
    /// The time zone that `ttl` and local times are counted in, a literal of type `text`.
    pub time_zone: Option<String>,
    /// Whether `ttl` has months, which are not all of one length.
    pub months: bool,
}

impl Deadline {
    /// A column of type `timestamptz`, as it is.
    pub fn column(column: &str) -> Deadline {
        Deadline {
            column: column.into(),
            column_type: ColumnType::Timestamptz,
            ttl: None,
            time_zone: None,
            months: false,
        }
    }

    /// Whether the deadline is the column, and keys are times.
    pub fn is_the_column(&self) -> bool {
        self.column_type == ColumnType::Timestamptz && self.ttl.is_none()
    }

    /// Whether a row before the bound may still have time: then its deadline is looked at, too.
    pub fn needs_recheck(&self) -> bool {
        !self.is_the_column() && (self.months || self.time_zone.is_some())
    }

    fn zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("'UTC'")
    }

    /// The deadline of a row, of type `timestamptz`. The first days that there are may not be in
    /// another time zone, and are past in all.
    pub fn of_row(&self) -> String {
        let (column, zone) = (&self.column, self.zone());
        let local = match self.column_type {
            ColumnType::Timestamptz if self.ttl.is_none() => return column.clone(),
            ColumnType::Timestamptz => format!("({column} AT TIME ZONE {zone})"),
            ColumnType::Timestamp => column.clone(),
            ColumnType::Date => format!("({column} + 1)::pg_catalog.timestamp"),
        };
        let ttl = self.ttl.as_ref().map_or(String::new(), |ttl| format!(" + {ttl}"));
        let (first, earliest) = (self.column_type.name(), "'-infinity'::pg_catalog.timestamptz");
        format!(
            "CASE WHEN {column} OPERATOR(pg_catalog.<) '4713-01-01 BC'::pg_catalog.{first} \
             THEN {earliest} ELSE (({local}{ttl}) AT TIME ZONE {zone}) END"
        )
    }

    /// The key before which rows are due at `now`, an expression of type `timestamptz`; of the
    /// type of the column.
    pub fn bound(&self, now: &str) -> String {
        let zone = self.zone();
        let ttl = self.ttl.as_ref().map_or(String::new(), |ttl| format!(" - {ttl}"));
        let local = format!("(({now} AT TIME ZONE {zone}){ttl})");
        match self.column_type {
            ColumnType::Timestamptz if self.ttl.is_none() => now.into(),
            ColumnType::Timestamptz => format!("({local} AT TIME ZONE {zone})"),
            ColumnType::Timestamp => local,
            // A day is due once it is over: the first that is not, where part of one counts whole.
            ColumnType::Date => {
                format!("({local} - '1 microsecond'::pg_catalog.interval)::pg_catalog.date")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_column_is_its_own_deadline() {
        let plain = Deadline::column("expires_at");
        assert_eq!((plain.of_row(), plain.bound("$1")), ("expires_at".into(), "$1".into()));
        assert!(plain.is_the_column() && !plain.needs_recheck());
    }

    #[test]
    fn what_is_added_to_the_column_is_taken_off_the_cutoff() {
        let ttl = Some("'1 day'::interval".into());
        let created = Deadline { ttl, ..Deadline::column("created_at") };
        assert_eq!(
            created.of_row(),
            "CASE WHEN created_at OPERATOR(pg_catalog.<) '4713-01-01 BC'::pg_catalog.timestamptz \
             THEN '-infinity'::pg_catalog.timestamptz ELSE \
             (((created_at AT TIME ZONE 'UTC') + '1 day'::interval) AT TIME ZONE 'UTC') END"
        );
        assert_eq!(
            created.bound("$1"),
            "((($1 AT TIME ZONE 'UTC') - '1 day'::interval) AT TIME ZONE 'UTC')"
        );
        assert!(!created.needs_recheck(), "days of UTC are all of one length");
        assert!(Deadline { months: true, ..created.clone() }.needs_recheck());
        assert!(Deadline { time_zone: Some("'x'".into()), ..created }.needs_recheck());
    }

    #[test]
    fn days_are_keys_and_back() {
        for day in [i32::MIN, -2_451_545, -1, 0, 1, 9_000, 100_000_000, i32::MAX] {
            assert_eq!(day_of_key(key_of_day(day)), day);
        }
        assert_eq!(day_of_key(DAY - 1), 0);
        assert_eq!(day_of_key(-1), -1);
        // Later than what microseconds can count to: in the far future in any case.
        assert_eq!(key_of_day(2_000_000_000), i64::MAX);
    }
}
