"""After a start, a crash or a promotion passes wait for the startup grace; the lease is had meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import (
    barriers, lease, live, overdue, status, wait_for, wait_for_cycles, wait_for_sweep, wait_until_reaped,
    watch_reaping,
)  # fmt: skip
from harness.standby import catch_up, promote, standby_of
from scenery.brake import GRACE, goes_on_holding, goes_on_reaping, notices, said, wait_until_held
from scenery.fleet import make_database

# Longer than any test: what reaps within it does not wait for it.
LONG = {"pg_reaper.startup_grace": "59min"}
RESUME = "SELECT pg_reaper_resume()"

# The WAL writer is started when the server begins to accept writes.
BEGAN = "(SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'walwriter')"


def left(row: Any) -> float:
    """The seconds that a status says are left of the grace."""
    return float(row.held.removeprefix("startup grace, ").removesuffix(" s left"))


def lost(session: psycopg.Connection[Any]) -> bool:
    """Whether the server has ended a session."""
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def has_ended(server: Server, seconds: float) -> None:
    """Waits until a grace of so many seconds must be over."""
    over = f"SELECT clock_timestamp() > {BEGAN} + interval '{seconds} s'"
    wait_until(lambda: server.value(over), bool, "the grace to be over")


def test_after_a_start_passes_wait_and_the_lease_is_renewed(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    row = wait_until_held(server, "startup grace, 35")
    assert row.last_sweep is None
    goes_on_holding(server)
    (entry,) = said(server, GRACE)
    assert entry.severity == "LOG"
    assert entry.message.startswith(GRACE + "35") and "pg_reaper.startup_grace" in entry.message
    # A sweep by hand is somebody's own decision.
    assert server.value("SELECT pg_reaper_sweep()") == 1


def test_passes_begin_when_the_grace_is_over_and_not_an_interval_later(make_server: Callable[..., Server]) -> None:
    settings = {"pg_reaper.interval": "40s", "pg_reaper.lease_duration": "120s"}
    server = make_server({**settings, "pg_reaper.startup_grace": "6s"})
    reapings = watch_reaping(server)
    overdue(server, "overdue")
    server.restart()
    wait_until_held(server, "startup grace")
    assert barriers(server) == {"overdue"}
    wait_until_reaped(server, "overdue", timeout=20)
    (row,) = reapings()
    after = row.at - server.value(f"SELECT {BEGAN}")
    assert timedelta(seconds=5.9) < after < timedelta(seconds=18)
    assert status(server).held is None
    wait_until(lambda: said(server, "pg_reaper: the startup grace is over"), bool, "the line that says so")
    assert len(said(server, GRACE)) <= 2, "one for each start"


def test_unless_it_is_set_the_grace_is_one_lease(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.startup_grace": "-1", "pg_reaper.lease_duration": "6s"})
    reapings = watch_reaping(server)
    overdue(server, "overdue")
    server.restart()
    wait_until_held(server, "startup grace, ")
    wait_until_reaped(server, "overdue")
    (row,) = reapings()
    assert row.at - server.value(f"SELECT {BEGAN}") > timedelta(seconds=5.9)


def test_with_0_nothing_waits(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.startup_grace": "0", "pg_reaper.lease_duration": "1h"})
    goes_on_reaping(server)
    assert said(server, GRACE) == []


def test_a_worker_that_ended_alone_waits_for_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.startup_grace": "6s"})
    wait_until_held(server, "startup grace")
    wait_until(lambda: status(server).held, lambda held: held is None, "the grace to be over")
    wait_for_sweep(server)
    server.set(**LONG)
    pid = status(server).pid
    server.value("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: status(server), lambda row: row.pid not in (None, pid), "another worker")
    goes_on_reaping(server)
    # Nor one that was stopped, nor the launcher's next.
    server.value("SELECT pg_reaper_stop()")
    server.value("SELECT pg_reaper_start()")
    goes_on_reaping(server)
    server.value("SELECT pg_terminate_backend(%s)", [server.launcher_pid()])
    goes_on_reaping(server)
    assert len(said(server, GRACE)) == 1


def test_a_worker_that_ends_within_the_grace_does_not_begin_it_again(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.startup_grace": "12s"})
    wait_until_held(server, "startup grace")
    reapings = watch_reaping(server)
    overdue(server, "overdue")
    wait_until(lambda: left(status(server)), lambda seconds: seconds < 6, "some seconds to pass")
    pid = status(server).pid
    server.value("SELECT pg_terminate_backend(%s)", [pid])
    wait_until_reaped(server, "overdue")
    (row,) = reapings()
    after = row.at - server.value(f"SELECT {BEGAN}")
    assert timedelta(seconds=11.9) < after < timedelta(seconds=18)
    assert row.pid != pid


def test_after_a_crash_of_a_process_the_grace_begins_again(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    wait_until_held(server, "startup grace")
    assert server.value(RESUME) is True
    goes_on_reaping(server)
    pid = status(server).pid
    session = server.connect()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: lost(session), bool, "the crash")
    wait_until(server.accepts_connections, bool, "the server to be back")
    wait_until_held(server, "startup grace, 35")
    goes_on_holding(server)
    # It was the crash, not the start of the postmaster.
    age = f"SELECT extract(epoch FROM clock_timestamp() - {BEGAN})::float8"
    before, row, after = server.value(age), status(server), server.value(age)
    assert before - 2 < 59 * 60 - left(row) < after + 2


def test_after_a_promotion_the_grace_begins(make_server: Callable[..., Server]) -> None:
    primary = make_server({"pg_reaper.lease_duration": "2s"}, name="primary")
    overdue(primary, "overdue")
    wait_until_reaped(primary, "overdue")
    with standby_of(primary, LONG) as standby:
        live(primary, "live")
        catch_up(primary, standby)
        # It has run for a while when it is promoted.
        running = "SELECT clock_timestamp() > pg_postmaster_start_time() + interval '4 s'"
        wait_until(lambda: standby.value(running), bool, "the standby to have run for a while")
        promote(standby)
        row = wait_until_held(standby, "startup grace, 35")
        age = standby.value(f"SELECT extract(epoch FROM clock_timestamp() - {BEGAN})::float8")
        assert abs(59 * 60 - age - left(row)) < 2, "it counts from the promotion, not from the start"
        assert standby.value(f"SELECT {BEGAN} - pg_postmaster_start_time()") > timedelta(seconds=3)
        goes_on_holding(standby)
        assert standby.value(RESUME) is True
        goes_on_reaping(standby)


def test_a_standby_has_nothing_to_resume(make_server: Callable[..., Server]) -> None:
    primary = make_server(name="primary")
    with standby_of(primary) as standby, pytest.raises(psycopg.Error, match="in recovery") as refused:
        standby.query(RESUME)
    assert refused.value.sqlstate == "25006"


def test_an_extension_created_on_a_running_server_waits_for_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.startup_grace": "2s"}, extension=False)
    has_ended(server, 2)
    server.execute("CREATE EXTENSION pg_reaper")
    goes_on_reaping(server)
    make_database(server, "other")
    wait_for(server, "leader", database="other")
    assert said(server, GRACE) == []


def test_resuming_ends_the_grace_at_once(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "100s", "pg_reaper.lease_duration": "300s", **LONG})
    wait_until_held(server, "startup grace")
    overdue(server, "overdue")
    wait_until(lambda: lease(server).leader, bool, "the lease to be had")
    held, heard = notices(server, RESUME)
    assert held is True
    assert len(heard) == 1 and heard[0].startswith("passes go on: the startup grace had 35")
    wait_until_reaped(server, "overdue")
    assert status(server).held is None
    wait_until(lambda: said(server, "pg_reaper: passes go on: pg_reaper_resume()"), bool, "the line that says so")
    # Nor does a longer grace bring it back.
    server.set(**{"pg_reaper.startup_grace": "2h", "pg_reaper.interval": "100ms"})
    goes_on_reaping(server)


def test_a_reload_changes_a_grace_under_way(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    wait_until_held(server, "startup grace, 35")
    server.set(**{"pg_reaper.startup_grace": "2h"})
    wait_until_held(server, "startup grace, 7")
    server.set(**{"pg_reaper.startup_grace": "0"})
    goes_on_reaping(server)


@pytest.mark.skipif(installation.major_version() < 17, reason="there is no shared memory without the preload")
def test_without_the_preload_the_grace_counts_from_the_start_of_the_server_too(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(LONG, preload=False)
    server.execute("SELECT pg_reaper_start()")
    wait_until_held(server, "startup grace, 35")
    wait_for_cycles(server)
    assert server.value(RESUME) is True
    goes_on_reaping(server)
