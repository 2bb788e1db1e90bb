//! Rows in quarantine whose next try has come. They are known by their tids, so nothing is walked.

use super::super::ahead::Due;
use super::super::batch::BatchSize;
use super::super::progress::Pass;
use super::super::quarantine::Quarantine;
use super::Bounds;
use super::rows::{Rows, Snag};

/// Tries `rows` again, as far as this turn goes. One that fails again is left alone for longer; what
/// else stops a batch stops the pass, and has the row at fault left alone as well, lest it does so
/// each time.
pub fn retry<R: Rows>(
    rows: &mut R,
    pass: &mut Pass,
    quarantine: &mut Quarantine,
    due: &[Due],
    bounds: &Bounds,
) -> Result<(), R::Stop> {
    // Most of them fail again, so they are tried one by one until some do not.
    let mut size = BatchSize::new(1);
    let mut at = 0;
    while at < due.len() && bounds.room(pass) > 0 {
        let most = size.get(bounds.batch_size).min(bounds.room(pass));
        let batch = &due[at..due.len().min(at + most)];
        match rows.these(batch, false, pass) {
            Ok(reaped) => {
                // What is neither reaped nor fails is locked, re-armed or gone: the pass finds out.
                if reaped < batch.len() as u64 {
                    batch.iter().for_each(|row| pass.left(row.deadline));
                }
                quarantine.release(batch);
                size.succeeded(bounds.batch_size, batch.len());
                at += batch.len();
            }
            Err(Snag::MetALock) => at += batch.len(),
            Err(_) if batch.len() > 1 => size.failed(batch.len()),
            Err(Snag::Row(why) | Snag::Cancelled(why)) if rows.why(&why, false).is_some() => {
                again(rows, quarantine, batch[0], &why, bounds);
                at += 1;
            }
            Err(Snag::Row(why) | Snag::Cancelled(why) | Snag::Stop(why)) => {
                again(rows, quarantine, batch[0], &why, bounds);
                return Err(why);
            }
        }
        if rows.should_yield() {
            break;
        }
    }
    Ok(())
}

/// The row failed again, unless it cannot be to blame.
fn again<R: Rows>(rows: &R, quarantine: &mut Quarantine, row: Due, why: &R::Stop, bounds: &Bounds) {
    if let Some(said) = rows.why(why, true) {
        quarantine.isolate(row, said, bounds.now, bounds.first_wait);
    }
}
