//! Why policies cannot be swept as they are now, for the view `pg_reaper_policies`.

use super::answer;
use super::sweep::contained;
use crate::server::encoding::reportable;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::policies;
use crate::server::relation::hold_still;
use crate::server::sandbox::{Restriction, as_owner, with_lock_timeout};
use crate::server::settings;
use crate::server::target::Target;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::collections::BTreeMap;

/// A row for each policy that is suspended.
#[pg_extern(sql = false)]
fn pg_reaper_suspended() -> TableIterator<'static, (name!(policy, i64), name!(reason, String))> {
    let found = answer(suspended);
    TableIterator::new(found.into_iter().map(|(policy, why)| (policy, reportable(&why))))
}

fn suspended() -> Result<BTreeMap<i64, String>, Failure> {
    let extension = Extension::expect()?;
    let all = as_owner(extension.author, Restriction::Full, || policies::load(&extension))?;
    let gone = all.bereft.into_iter().map(|policy| (policy, "its table was dropped".into()));
    let mut found: BTreeMap<i64, String> = gone.collect();
    with_lock_timeout(settings::read().lock_limit(), || {
        for target in &all.targets {
            if let Some(why) = trouble(target) {
                found.entry(target.policy).or_insert(why);
            }
        }
        Ok(found)
    })
}

/// What is wrong with one table of a policy.
fn trouble(target: &Target) -> Option<String> {
    let watched = match &target.watched {
        Ok(watched) => watched,
        Err(refusal) => return Some(refusal.to_string()),
    };
    // Those of barriers go by the protocol.
    watched.given.as_ref()?;
    let looked_at = contained(|| hold_still(target, pg_sys::AccessShareLock, None));
    // Of a table that somebody holds locked nothing can be told.
    let failure = looked_at.err().filter(|failure| !failure.is_lock())?;
    Some(failure.message)
}
