//! Logging what was reaped, one WARNING each up to a limit, then one line with the count.

use super::clock::iso;
use super::say;
use super::target::{Target, Watched};
use crate::decide::orphan::{Orphan, Rule};
use crate::decide::progress::Pass;
use crate::decide::{ServerTime, micros};

/// Logs each of `orphans`, reaped at `reaped_at` by `rule`. In the worker: after the commit.
pub fn log(target: &Target, rule: Rule, reaped_at: ServerTime, orphans: &[Orphan]) {
    for orphan in orphans {
        let deadline = iso(orphan.deadline);
        let detail = orphan.detail(target.policy, &target.name, rule, deadline, reaped_at);
        say::warn_detail(&orphan.message(rule, reaped_at), detail.ok().as_deref());
    }
}

/// Says how many barriers of a pass had no line of their own. Rows of other tables have none.
pub fn log_rest(target: &Target, watched: &Watched, pass: &Pass) {
    if pass.unlogged > 0 && watched.barrier.is_some() {
        let all = pass.reaped();
        say::warn_detail(
            &format!(
                "reaped {} {}orphaned barrier{} of {}, {all} in this pass",
                pass.unlogged,
                if pass.logged > 0 { "more " } else { "" },
                if pass.unlogged == 1 { "" } else { "s" },
                target.name
            ),
            Some("pg_reaper.log_limit bounds the lines of one pass."),
        );
    }
}

/// When a barrier that last moved at `last_progress_at` was due.
pub fn deadline(rule: Rule, column: ServerTime) -> ServerTime {
    match rule {
        Rule::Expired => column,
        // Never stays never.
        Rule::Stuck(_) if matches!(column, ServerTime::MIN | ServerTime::MAX) => column,
        Rule::Stuck(timeout) => column.saturating_add(micros(timeout)),
    }
}
