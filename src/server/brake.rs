//! The brake of [`crate::decide::brake`], one for the server, in shared memory: it outlives
//! workers, and whoever asks it watches the clock for all. Where there is no shared memory, each
//! worker has its own.

use super::clock::reading;
use super::extension::Extension;
use super::failure::Failure;
use super::sql;
use super::transaction::in_transaction;
use super::{board, say};
use crate::decide::brake::{Brake, Hold, News, Resumed};
use crate::decide::config::Settings;
use crate::decide::refusal::Refusal;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::cell::RefCell;

thread_local! {
    static OWN: RefCell<Brake> = const { RefCell::new(Brake::NEW) };
}

fn read() -> Brake {
    board::read(|board| board.brake).unwrap_or_else(|| OWN.with_borrow(|own| *own))
}

/// Does `work` to the brake. It is asked before every batch, and seldom has something to change:
/// until it has, the lock is shared.
fn with<T>(work: impl Fn(&mut Brake) -> T) -> T {
    let before = read();
    let mut brake = before;
    let mut outcome = work(&mut brake);
    if brake != before && board::change(|board| outcome = work(&mut board.brake)).is_none() {
        OWN.set(brake);
    }
    outcome
}

/// What holds the passes now.
pub fn holds(settings: &Settings) -> Option<Hold> {
    let (now, bounds) = (reading(), settings.bounds());
    with(|brake| brake.judge(now, &bounds))
}

/// The same, for whoever only looks.
pub fn held(settings: &Settings) -> Option<Hold> {
    read().judge(reading(), &settings.bounds())
}

/// Has a sweep by hand refused while the clock is not to be trusted, where that can be known.
pub fn refuse(settings: &Settings) -> Result<(), Failure> {
    match holds(settings) {
        Some(Hold::Leap(leap)) if board::available() => Err(Refusal::ClockLeapt { leap }.into()),
        _ => Ok(()),
    }
}

/// What holds the passes of a leader now. Says in the log what is new of it.
pub fn attend(extension: &Extension, settings: &Settings) -> Result<Option<Hold>, Failure> {
    if !read().knows_its_start() {
        let statement = sql::statement(include_str!("../../sql/began.sql"));
        let began = in_transaction(|| sql::query(&statement, &[], |row| Ok(row.int8(1))))?;
        let (now, began) = (reading(), began.into_iter().flatten().next());
        with(|brake| brake.began(now, began));
    }
    let (now, bounds) = (reading(), settings.bounds());
    let (hold, news) = with(|brake| {
        let hold = brake.judge(now, &bounds);
        (hold, brake.news(hold))
    });
    if let Some(news) = news {
        tell(news, extension, settings);
    }
    Ok(hold)
}

fn tell(news: News, extension: &Extension, settings: &Settings) {
    match news {
        News::Holds(hold @ Hold::Leap(_)) => {
            let limit = settings.max_clock_jump.unwrap_or_default();
            let detail = format!(
                "That is more than pg_reaper.max_clock_jump ({limit:?}) within a day or two. By \
                 such a clock, rows may be past their deadline that are not."
            );
            let call = match board::available() {
                true => "@schema@.pg_reaper_resume()",
                false => "@schema@.pg_reaper_stop(), @schema@.pg_reaper_start()",
            };
            let hint = extension.sql(&format!(
                "Set the clock right, and passes go on by themselves. If it is right as it is \
                 (the machine was suspended, or the clock was behind before), have them go on: \
                 SELECT {call}."
            ));
            let message = format!("pg_reaper holds all passes: {hold}");
            let code = PgSqlErrorCode::ERRCODE_WARNING;
            say::say(PgLogLevel::WARNING, code, &message, Some(&detail), Some(&hint));
        }
        News::Holds(Hold::Grace(left)) => say::log(format!(
            "pg_reaper: passes begin in {:.1} s, when pg_reaper.startup_grace is over",
            left.as_secs_f64()
        )),
        News::GraceOver => say::log("pg_reaper: the startup grace is over; passes begin"),
        News::LeapOver => {
            say::log("pg_reaper: passes go on: the clock is within pg_reaper.max_clock_jump again");
        }
        News::Resumed => say::log("pg_reaper: passes go on: pg_reaper_resume() was called"),
    }
}

/// Ends whatever holds the passes.
pub fn resume(settings: &Settings) -> Resumed {
    let (now, bounds) = (reading(), settings.bounds());
    with(|brake| brake.resume(now, &bounds))
}

/// How often somebody has resumed: a worker that waits, and sees it change, need not wait.
pub fn resumes() -> u32 {
    read().resumes()
}
