"""``pg_reaper_resume()`` ends what holds passes, at once and everywhere; a sweep by hand is held too."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness import Server, wait_until
from harness.leaping import Clock
from harness.reaper import (
    adoptable, barriers, live, overdue, status, wait_for, wait_for_sweep, wait_until_reaped,
)  # fmt: skip
from scenery.brake import (
    HOLDS, HOUR, FileGate, goes_on_holding, goes_on_reaping, notices, said, wait_until_held, wait_until_seen,
)  # fmt: skip
from scenery.fleet import make_database, until_leading, until_swept

# What somebody waits for who is not woken.
SLOW = {"pg_reaper.interval": "100s", "pg_reaper.lease_duration": "300s"}

RESUME = "SELECT pg_reaper_resume()"


def test_resuming_takes_the_clock_as_it_is_and_wakes_the_worker(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    server = make_server(SLOW, environment=clock.environment)
    wait_for(server, "leader")
    wait_until(lambda: status(server).last_sweep, bool, "the first sweep, after which it waits")
    live(server, "live before the leap")
    clock.leap(2 * HOUR)
    wait_until_held(server, "clock leapt")
    held, heard = notices(server, RESUME)
    assert held is True
    assert len(heard) == 1 and heard[0].startswith("passes go on: the clock had leapt forward by 7200.")
    wait_until_reaped(server, "live before the leap")
    row = status(server)
    assert (row.state, row.held) == ("leader", None)
    # From there on a leap is a leap.
    clock.leap(2 * HOUR)
    wait_until_held(server, "clock leapt forward by 7200.")


def test_resuming_in_one_database_resumes_the_workers_of_all(leaping: Server, clock: Clock) -> None:
    make_database(leaping, "other")
    until_leading(leaping, "other")
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt", database="other")
    wait_until_seen(leaping)
    assert leaping.value(RESUME, dbname="other") is True
    goes_on_reaping(leaping)
    until_swept(leaping, "other")
    (entry,) = said(leaping, "pg_reaper: passes go on")
    assert (entry.severity, entry.message) == ("LOG", "pg_reaper: passes go on: pg_reaper_resume() was called")


def test_resuming_what_is_not_held_says_so(leaping: Server) -> None:
    assert notices(leaping, RESUME) == (False, ["nothing holds the passes of this server"])


def test_nobody_resumes_who_was_not_granted_it(leaping: Server, clock: Clock) -> None:
    leaping.execute("CREATE ROLE anybody LOGIN IN ROLE pg_monitor", "CREATE ROLE operator LOGIN")
    leaping.execute("GRANT EXECUTE ON FUNCTION pg_reaper_resume() TO operator")
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="pg_reaper_resume"):
        leaping.query(RESUME, user="anybody")
    assert leaping.value(RESUME, user="operator") is True
    goes_on_reaping(leaping)


def test_a_sweep_by_hand_is_refused_with_the_way_out(leaping: Server, clock: Clock) -> None:
    live(leaping, "live")
    adoptable(leaping, "empty")
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt")
    for call in ("pg_reaper_sweep()", "pg_reaper_sweep('empty')", "pg_reaper_sweep(max_rows => 1)"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="clock leapt forward by 7200") as refused:
            leaping.query(f"SELECT {call}")
        assert "pg_reaper_resume()" in (refused.value.diag.message_hint or "")
    assert barriers(leaping) == {"live"}
    clock.leap(-2 * HOUR)
    assert leaping.value("SELECT pg_reaper_sweep()") == 0
    clock.leap(2 * HOUR)
    assert leaping.value(RESUME) is True
    leaping.value("SELECT pg_reaper_sweep()")
    assert barriers(leaping) == set()


def test_a_sweep_by_hand_sees_a_leap_that_no_worker_has_seen(leaping: Server, clock: Clock) -> None:
    leaping.value("SELECT pg_reaper_stop()")
    live(leaping, "live")
    clock.leap(2 * HOUR)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="clock leapt"):
        leaping.query("SELECT pg_reaper_sweep()")
    # The worker that comes says it in the log, and how it ended.
    leaping.value("SELECT pg_reaper_start()")
    wait_until_held(leaping, "clock leapt")
    wait_until(lambda: said(leaping, HOLDS), bool, "the warning")


def test_a_leap_in_the_middle_of_a_sweep_by_hand_ends_it(make_server: Callable[..., Server], clock: Clock) -> None:
    server = make_server({"pg_reaper.enabled": "off"}, environment=clock.environment)
    wait_for(server, "disabled")
    adoptable(server, "jobs")
    gate = FileGate(server)
    live(server, "live", table="jobs")
    overdue(server, "gate")
    with ThreadPoolExecutor(1) as pool:
        sweep = pool.submit(server.value, "SELECT pg_reaper_sweep()")
        gate.wait_for_arrival()
        clock.leap(2 * HOUR)
        gate.open()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="clock leapt"):
            sweep.result(30)
    assert barriers(server, "jobs") == {"live"}
    assert barriers(server) == {"gate"}, "the sweep is one transaction"


def test_the_lease_and_the_counters_stand_through_a_hold(leaping: Server, clock: Clock) -> None:
    before = status(leaping)
    clock.leap(2 * HOUR)
    wait_until_held(leaping, "clock leapt")
    goes_on_holding(leaping)
    assert leaping.value(RESUME) is True
    goes_on_reaping(leaping)
    after = status(leaping)
    assert (after.pid, after.term, after.errors) == (before.pid, before.term, 0)
