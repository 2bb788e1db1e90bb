//! `pg_reaper_resume()`: ends what holds the passes of this server.

use super::answer;
use crate::decide::refusal::Refusal;
use crate::server::extension::Extension;
use crate::server::failure::Failure;
use crate::server::{board, brake, say, settings, status};
use pgrx::prelude::*;

/// Has passes go on, in every database: takes the clock for right as it is, and ends the startup
/// grace. Returns whether there was something to end.
#[pg_extern(sql = false)]
fn pg_reaper_resume() -> bool {
    answer(resume)
}

fn resume() -> Result<bool, Failure> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Refusal::InRecovery.into());
    }
    Extension::any()?;
    board::attach();
    if !board::available() {
        return Err(Refusal::NoSharedMemory.into());
    }
    let ended = brake::resume(&settings::read());
    if let Some(leap) = ended.leap {
        say::notice(&format!(
            "passes go on: the clock had leapt forward by {:.1} s, and is taken for right as it is",
            leap.as_secs_f64()
        ));
    }
    if let Some(left) = ended.grace {
        say::notice(&format!(
            "passes go on: the startup grace had {:.1} s to go",
            left.as_secs_f64()
        ));
    }
    let held = ended.leap.is_some() || ended.grace.is_some();
    if held {
        status::wake_all();
    } else {
        say::notice("nothing holds the passes of this server");
    }
    Ok(held)
}
