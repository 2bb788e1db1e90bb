"""The brake of a worker without the preload: shared since PostgreSQL 17, before that its own."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.leaping import Clock
from harness.reaper import barriers, live, overdue, wait_until_reaped
from scenery.brake import HOLDS, HOUR, goes_on_reaping, said, wait_until_held, wait_until_seen

shared = pytest.mark.skipif(installation.major_version() < 17, reason="there is no shared memory without the preload")
own = pytest.mark.skipif(installation.major_version() >= 17, reason="there is shared memory without the preload")

RESTART = "SELECT pg_reaper_stop(), pg_reaper_start()"


@pytest.fixture
def unloaded(make_server: Callable[..., Server], clock: Clock) -> Server:
    server = make_server(preload=False, environment=clock.environment)
    server.execute("SELECT pg_reaper_start()")
    overdue(server, "first")
    wait_until_reaped(server, "first")
    return server


@shared
def test_it_is_held_and_resumed_as_any_other(unloaded: Server, clock: Clock) -> None:
    live(unloaded, "live")
    clock.leap(2 * HOUR)
    wait_until_held(unloaded, "clock leapt")
    wait_until_seen(unloaded)
    assert "SELECT public.pg_reaper_resume()" in said(unloaded, HOLDS)[0].hint
    unloaded.execute(RESTART)
    wait_until_held(unloaded, "clock leapt")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="clock leapt"):
        unloaded.query("SELECT pg_reaper_sweep()")
    assert barriers(unloaded) == {"live"}
    assert unloaded.value("SELECT pg_reaper_resume()") is True
    wait_until_reaped(unloaded, "live")
    goes_on_reaping(unloaded)


@shared
def test_sweeps_by_hand_alone_watch_the_clock_as_well(make_server: Callable[..., Server], clock: Clock) -> None:
    server = make_server(preload=False, environment=clock.environment)
    live(server, "live")
    assert server.value("SELECT pg_reaper_sweep()") == 0
    clock.leap(2 * HOUR)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="clock leapt"):
        server.query("SELECT pg_reaper_sweep()")
    assert server.value("SELECT pg_reaper_resume()") is True
    assert server.value("SELECT pg_reaper_sweep()") == 1


@own
def test_it_is_held_and_a_new_worker_takes_the_clock_as_it_is(unloaded: Server, clock: Clock) -> None:
    live(unloaded, "live")
    clock.leap(2 * HOUR)
    wait_until_seen(unloaded)
    assert "SELECT public.pg_reaper_stop(), public.pg_reaper_start()." in said(unloaded, HOLDS)[0].hint
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no shared memory") as refused:
        unloaded.query("SELECT pg_reaper_resume()")
    assert RESTART in (refused.value.diag.message_hint or "")
    assert barriers(unloaded) == {"live"}
    unloaded.execute(RESTART)
    wait_until_reaped(unloaded, "live")


@own
def test_it_goes_on_by_itself_when_the_clock_is_back(unloaded: Server, clock: Clock) -> None:
    live(unloaded, "live")
    clock.leap(2 * HOUR)
    wait_until_seen(unloaded)
    clock.leap(-2 * HOUR)
    overdue(unloaded, "overdue")
    wait_until_reaped(unloaded, "overdue")
    assert barriers(unloaded) == {"live"}
    wait_until(lambda: said(unloaded, "pg_reaper: passes go on: the clock is"), bool, "the line that says so")


@own
def test_a_grace_counts_from_the_start_of_the_server(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.startup_grace": "6s"}, preload=False)
    began = "(SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'walwriter')"
    overdue(server, "first")
    server.execute("SELECT pg_reaper_start()")
    wait_until_reaped(server, "first")
    assert server.value(f"SELECT clock_timestamp() > {began} + interval '5.9 s'")
    # A worker that comes later waits for nothing.
    server.execute(RESTART)
    overdue(server, "second")
    wait_until_reaped(server, "second")
    assert len(said(server, "pg_reaper: passes begin in")) == 1
