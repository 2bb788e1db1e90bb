"""A wall clock that leaps forward holds all passes, until it is back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from harness import Server, wait_until
from harness.leaping import Clock
from harness.reaper import (
    PATIENT, adoptable, barriers, live, overdue, status, wait_for, wait_for_cycles, wait_for_sweep,
    wait_until_reaped,
)  # fmt: skip
from scenery.barriers import BY_HAND, COLUMNS, arm
from scenery.brake import HOLDS, HOUR, FileGate, goes_on_holding, goes_on_reaping, said, wait_until_held, wait_until_seen
from scenery.fleet import make_database, until_leading


def test_a_leap_forward_reaps_no_live_row_and_passes_go_on_when_the_clock_is_back(
    leaping: Server, clock: Clock
) -> None:
    live(leaping, "live")
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt forward by 7200.")
    late = goes_on_holding(leaping)
    assert "live" in barriers(leaping)

    clock.leap(-2 * HOUR)
    wait_until(lambda: status(leaping).held, lambda held: held is None, "the brake to let go")
    wait_until_reaped(leaping, late)
    goes_on_reaping(leaping)
    assert barriers(leaping) == {"live"}
    assert status(leaping).errors == 0


def test_the_log_says_once_that_passes_are_held_and_once_that_they_go_on(leaping: Server, clock: Clock) -> None:
    clock.leap(1.5 * HOUR)
    wait_until_held(leaping, "clock leapt")
    goes_on_holding(leaping)
    (entry,) = said(leaping, HOLDS)
    assert entry.severity == "WARNING"
    assert entry.message.startswith(HOLDS + "5400.")
    assert "pg_reaper.max_clock_jump (3600s)" in entry.detail
    assert "SELECT public.pg_reaper_resume()" in entry.hint
    clock.leap(-1.5 * HOUR)
    goes_on_reaping(leaping)
    wait_until(lambda: said(leaping, "pg_reaper: passes go on: the clock is"), bool, "the line that says so")
    wait_for_cycles(leaping)
    (entry,) = said(leaping, "pg_reaper: passes go on")
    assert entry.severity == "LOG"
    # A second leap is said again.
    clock.leap(3 * HOUR)
    wait_until(lambda: len(said(leaping, HOLDS)), lambda times: times == 2, "the second warning")


def test_a_leap_within_the_limit_holds_nothing_and_leaps_add_up(leaping: Server, clock: Clock) -> None:
    clock.leap(0.7 * HOUR)
    goes_on_reaping(leaping)
    live(leaping, "live")
    clock.leap(0.7 * HOUR)
    wait_until_held(leaping, "clock leapt forward by 50")
    goes_on_holding(leaping)
    assert "live" in barriers(leaping)


def test_a_leap_backward_and_the_return_hold_nothing(leaping: Server, clock: Clock) -> None:
    for _ in range(2):
        clock.leap(-5 * HOUR)
        wait_for_cycles(leaping)
        goes_on_reaping(leaping)
        clock.leap(5 * HOUR)
        wait_for_cycles(leaping)
        goes_on_reaping(leaping)
    assert said(leaping, HOLDS) == []
    clock.leap(1.1 * HOUR)
    wait_until_held(leaping, "clock leapt")


def test_the_limit_is_a_setting_that_a_reload_changes_and_0_turns_it_off(leaping: Server, clock: Clock) -> None:
    leaping.set(**{"pg_reaper.max_clock_jump": "30s"})
    wait_for_cycles(leaping)
    clock.leap(40)
    wait_until_held(leaping, "clock leapt forward by 40.")
    leaping.set(**{"pg_reaper.max_clock_jump": "1min"})
    goes_on_reaping(leaping)
    leaping.set(**{"pg_reaper.max_clock_jump": "0"})
    wait_for_cycles(leaping)
    clock.leap(200 * HOUR)
    goes_on_reaping(leaping)
    # Turned on again, it takes the clock as it is.
    leaping.set(**{"pg_reaper.max_clock_jump": None})
    wait_for_cycles(leaping)
    goes_on_reaping(leaping)
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt forward by 7200.")


def test_a_leap_while_the_worker_is_down_is_seen_by_the_next_one(leaping: Server, clock: Clock) -> None:
    live(leaping, "live")
    assert leaping.value("SELECT pg_reaper_stop()") == 1
    clock.leap(2 * HOUR)
    leaping.value("SELECT pg_reaper_start()")
    wait_until_held(leaping, "clock leapt forward by 7200.")
    goes_on_holding(leaping)
    # And by the one after that, which says nothing new.
    leaping.value("SELECT pg_terminate_backend(%s)", [status(leaping).pid])
    wait_until(lambda: status(leaping), lambda row: row.pid is None or row.held is None, "the worker to end")
    wait_until_held(leaping, "clock leapt forward by 7200.")
    goes_on_holding(leaping)
    assert "live" in barriers(leaping)
    assert len(said(leaping, HOLDS)) == 1


def test_a_leap_while_the_worker_was_disabled_is_seen_when_it_is_enabled(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server({"pg_reaper.enabled": "off"}, environment=clock.environment)
    wait_for(server, "disabled")
    wait_for_cycles(server)
    live(server, "live")
    clock.leap(2 * HOUR)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until_held(server, "clock leapt")
    wait_until_seen(server)
    assert barriers(server) == {"live"}


def test_who_is_down_is_not_held(leaping: Server, clock: Clock) -> None:
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt")
    leaping.value("SELECT pg_reaper_stop()")
    row = status(leaping)
    assert (row.state, row.held) == ("down", None)


def test_after_a_crash_the_clock_is_taken_as_it_is(leaping: Server, clock: Clock) -> None:
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt")
    leaping.crash()
    leaping.start()
    wait_for(leaping, "leader")
    goes_on_reaping(leaping)


def test_every_database_is_held_and_the_log_says_so_once(leaping: Server, clock: Clock) -> None:
    make_database(leaping, "other")
    until_leading(leaping, "other")
    arm(leaping, "live", due="1 h", dbname="other")
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt")
    wait_until_held(leaping, "clock leapt", database="other")
    goes_on_holding(leaping)
    assert leaping.value("SELECT count(*) FROM pg_barrier_state", dbname="other") == 1
    assert len(said(leaping, HOLDS)) == 1


def test_a_leap_in_the_middle_of_a_sweep_holds_the_tables_that_come_after(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server(PATIENT, environment=clock.environment)
    wait_for(server, "leader")
    adoptable(server, "jobs")
    wait_for_sweep(server)
    gate = FileGate(server)
    live(server, "live", table="jobs")
    overdue(server, "gate")
    gate.wait_for_arrival()
    clock.leap(2 * HOUR)
    gate.open()
    wait_until_seen(server)
    assert barriers(server, "jobs") == {"live"}
    # What was overdue before the leap was rightly reaped.
    assert barriers(server) == set()


def test_a_sweep_that_a_leap_has_cut_off_is_not_told_as_a_successful_one(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server(PATIENT, environment=clock.environment)
    wait_for(server, "leader")
    adoptable(server, "jobs")
    # Or the sweep that is cut off has no table before it still.
    wait_for_sweep(server)
    gate = FileGate(server)
    overdue(server, "gate")
    gate.wait_for_arrival()
    before = status(server).last_sweep
    clock.leap(2 * HOUR)
    gate.open()
    wait_until_seen(server)
    assert barriers(server) == set()
    assert status(server).last_sweep == before


def test_a_leap_between_two_rules_of_one_table_holds_the_second(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server({**PATIENT, "pg_reaper.stuck_timeout": "1h"}, environment=clock.environment)
    wait_for(server, "leader")
    server.execute(f"CREATE TABLE jobs ({COLUMNS})", "CREATE INDEX ON jobs (expires_at)")
    gate = FileGate(server, "jobs")
    arm(server, "live", due="10 h", table="jobs")
    arm(server, "gate", table="jobs")
    # The first pass of a table goes by both rules.
    server.execute("SELECT pg_reaper_adopt('jobs')")
    gate.wait_for_arrival()
    clock.leap(2 * HOUR)
    gate.open()
    wait_until_seen(server)
    assert barriers(server, "jobs") == {"live"}


def test_a_pass_that_a_leap_cut_short_is_not_gone_on_with_when_the_clock_is_back(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server({**PATIENT, "pg_reaper.batch_size": "1"}, environment=clock.environment)
    wait_for(server, "leader")
    gate = FileGate(server)
    # Within the limit, so that the pass goes by this clock.
    clock.leap(0.7 * HOUR)
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at) VALUES"
        " ('gate', 1, now() - interval '1 day', now() - interval '25 min'),"
        " ('live', 1, now() - interval '1 day', now() - interval '20 min')"
    )
    gate.wait_for_arrival()
    # For a reload a pass is cut short.
    server.set(**{"pg_reaper.log_limit": "7"})
    clock.leap(0.7 * HOUR)
    gate.open()
    wait_until_seen(server)
    assert barriers(server) == {"live"}
    clock.leap(-1.4 * HOUR)
    goes_on_reaping(server)
    assert barriers(server) == {"live"}


def test_the_process_title_says_that_passes_are_held(leaping: Server, clock: Clock) -> None:
    pid = status(leaping).pid

    def shows(text: str) -> None:
        title = Path(f"/proc/{pid}/cmdline")
        wait_until(lambda: title.read_bytes().split(b"\0")[0].decode().rstrip(), lambda now: now.endswith(text), text)

    shows("postgres leader")
    clock.leap(2 * HOUR)
    shows("postgres leader, held")
    clock.leap(-2 * HOUR)
    shows("postgres leader")


def test_a_leap_in_the_middle_of_a_batch_ends_no_worker_and_accuses_no_function(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server({**PATIENT, "pg_reaper.max_clock_jump": "0"}, environment=clock.environment)
    pid = wait_for(server, "leader").pid
    gate = FileGate(server)
    for n in range(5):
        overdue(server, f"gate {n}")
        gate.wait_for_arrival()
        clock.leap(HOUR)
        gate.open()
        wait_until_reaped(server, f"gate {n}")
        gate.close()
    row = status(server)
    assert (row.pid, row.errors) == (pid, 0)


def test_a_clock_that_is_set_back_in_a_sweep_by_hand_ends_it(make_server: Callable[..., Server], clock: Clock) -> None:
    server = make_server({**PATIENT, **BY_HAND, "pg_reaper.batch_size": "1"}, environment=clock.environment)
    opened = server.directory / "open"
    # Without a nap, which would go on until the clock is back.
    server.execute(
        "CREATE FUNCTION spin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(7);"
        f" WHILE (pg_stat_file('{opened}', true)).size IS NULL LOOP END LOOP; RETURN OLD; END $$",
        "CREATE TRIGGER spin BEFORE DELETE ON pg_barrier_state FOR EACH ROW"
        " WHEN (OLD.execution_id ~ '^gate') EXECUTE FUNCTION spin()",
    )
    arm(server, "gate", "later")
    with ThreadPoolExecutor() as pool:
        swept = pool.submit(server.query, "SELECT pg_reaper_sweep('pg_barrier_state')")
        arrived = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"
        wait_until(lambda: server.value(arrived), description="the sweep to come to the gate")
        clock.leap(-2 * HOUR)
        # It has a deadline before what was now when the sweep began.
        arm(server, "live", due="45 min")
        opened.touch()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="set back by 7[12].* in the middle of a"):
            swept.result(timeout=30)
    assert barriers(server) == {"gate", "later", "live"}
    # The clock is right now, for all that anybody knows.
    assert server.value("SELECT pg_reaper_sweep()") == 0
    assert "live" in barriers(server)
