//! What is said of each orphaned barrier that was reaped.

use super::ServerTime;
use serde::Serialize;
use std::time::Duration;

/// Which rule a barrier was reaped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Past `expires_at`.
    Expired,
    /// No progress for this long (`stuck_timeout`).
    Stuck(Duration),
}

/// A barrier as it stood when it was reaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// `None`: NULL, or the table has no such column.
    pub execution_id: Option<String>,
    pub organization_id: Option<String>,
    pub remaining: Option<i64>,
    /// The deadline it was reaped by.
    pub deadline: ServerTime,
}

/// The fields of one reaped barrier, as one JSON object in the DETAIL of its log line.
#[derive(Serialize)]
struct Record<'a> {
    policy: i64,
    relation: &'a str,
    execution_id: Option<&'a str>,
    organization_id: Option<&'a str>,
    remaining: Option<i64>,
    deadline: String,
    lateness_ms: i64,
    reason: &'static str,
    rule: &'static str,
}

/// Why a barrier was never finished, from what was left in `remaining`.
pub fn reason(remaining: Option<i64>) -> &'static str {
    match remaining {
        None => "its fan-out was never completed",
        Some(1..) => "tasks never completed",
        Some(0) => "all tasks done, but the callback never fired",
        Some(_) => "torn down already",
    }
}

/// JSON in ASCII alone: what is left can neither break a line nor steer a terminal. Outside its
/// strings JSON is ASCII anyway, and inside them `\uXXXX` means the same.
pub fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Makes text safe to stand in one line of a log: quoted, with line breaks, control characters
/// and whatever does not print escaped, so that no id can forge a line of its own.
pub fn quoted(text: &str) -> String {
    format!("{text:?}")
}

impl Orphan {
    /// The primary message of its WARNING.
    pub fn message(&self, rule: Rule, reaped_at: ServerTime) -> String {
        let id = self.execution_id.as_deref().map_or("(null)".into(), quoted);
        let mut facts = Vec::new();
        if let Some(organization) = self.organization_id.as_deref() {
            facts.push(format!("organization {}", quoted(organization)));
        }
        if let Some(remaining) = self.remaining {
            facts.push(format!("remaining {remaining}"));
        }
        let facts =
            if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        let late = self.lateness_ms(reaped_at) as f64 / 1000.0;
        let rule = match rule {
            Rule::Expired => format!("{late:.3} s past its deadline"),
            Rule::Stuck(timeout) => {
                format!("no progress for {:.3} s", late + timeout.as_secs_f64())
            }
        };
        format!("reaped orphaned barrier {id}{facts}: {rule}, {}", reason(self.remaining))
    }

    /// The DETAIL of its WARNING: the same facts for machines, as one JSON object.
    /// `deadline` is its deadline as text.
    pub fn detail(
        &self,
        policy: i64,
        relation: &str,
        rule: Rule,
        deadline: String,
        reaped_at: ServerTime,
    ) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string(&Record {
            policy,
            relation,
            execution_id: self.execution_id.as_deref(),
            organization_id: self.organization_id.as_deref(),
            remaining: self.remaining,
            deadline,
            lateness_ms: self.lateness_ms(reaped_at),
            reason: reason(self.remaining),
            rule: match rule {
                Rule::Expired => "expired",
                Rule::Stuck(_) => "stuck",
            },
        })?;
        Ok(ascii(&json))
    }

    /// Time of reaping − deadline.
    fn lateness_ms(&self, reaped_at: ServerTime) -> i64 {
        reaped_at.saturating_sub(self.deadline) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphan(id: &str, remaining: i64) -> Orphan {
        Orphan {
            execution_id: Some(id.into()),
            organization_id: Some("acme".into()),
            remaining: Some(remaining),
            deadline: 1_000_000,
        }
    }

    #[test]
    fn the_reason_follows_what_remained() {
        let said = |n| orphan("x", n).message(Rule::Expired, 3_500_000);
        assert_eq!(
            said(3),
            "reaped orphaned barrier \"x\" (organization \"acme\", remaining 3): \
             2.500 s past its deadline, tasks never completed"
        );
        assert!(said(0).ends_with("all tasks done, but the callback never fired"));
        assert!(said(-1).ends_with("torn down already"));
    }

    #[test]
    fn a_stuck_barrier_says_how_long_it_stood_still() {
        let said = orphan("x", 1).message(Rule::Stuck(Duration::from_secs(60)), 3_000_000);
        assert!(said.contains(": no progress for 62.000 s, "), "{said}");
    }

    #[test]
    fn columns_that_are_missing_are_left_out() {
        let bare =
            Orphan { execution_id: None, organization_id: None, remaining: None, deadline: 0 };
        let said = bare.message(Rule::Expired, 0);
        assert!(said.starts_with("reaped orphaned barrier (null): 0.000 s"), "{said}");
    }

    #[test]
    fn no_id_can_forge_a_log_line() {
        for evil in [
            "a\nFATAL: b",
            "a\r\nb",
            "\u{1b}[2Jx",
            "\"",
            "\u{2028}",
            "\u{85}",
            "\u{202e}x",
            "\u{7f}é\u{1f480}",
        ] {
            let line = orphan(evil, 1).message(Rule::Expired, 0);
            let detail = orphan(evil, 1)
                .detail(1, "t", Rule::Expired, "d".into(), 0)
                .expect("strings always serialise");
            assert!(
                line.chars().all(|c| !c.is_control() && !"\u{2028}\u{202e}".contains(c)),
                "{line}"
            );
            assert!(detail.chars().all(|c| matches!(c, ' '..='~')), "{detail}");
            let back: serde_json::Value = serde_json::from_str(&detail).expect("it is JSON");
            assert_eq!(back["execution_id"], *evil);
        }
        assert!(orphan("a\"b", 1).message(Rule::Expired, 0).contains(r#""a\"b""#));
    }
}
