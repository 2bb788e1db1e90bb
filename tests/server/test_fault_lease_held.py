"""A lease that somebody sits on for longer than it lasts, from before the worker came even."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped,
)  # fmt: skip

LOCKS = {
    "the row": "SELECT FROM pg_reaper_lease FOR UPDATE",
    "the row, changed": "UPDATE pg_reaper_lease SET acquired_at = acquired_at",
    "the table": "LOCK TABLE pg_reaper_lease",
}


@pytest.fixture(params=LOCKS.values(), ids=LOCKS.keys())
def held(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> Iterator[tuple[Server, psycopg.Connection]]:
    """A server that starts while the lease is locked, by nobody's session; commit or roll back
    ``holder`` to end it."""
    # Nobody is cancelled for anybody, and the lease lasts a second.
    server = make_server(
        {"pg_reaper.lease_duration": "1s", "max_prepared_transactions": "2", "deadlock_timeout": "1h"}
    )
    wait_for(server, "leader")
    server.set(**{"pg_reaper.enabled": "off"})
    wait_for(server, "disabled")
    with server.connect(autocommit=False) as session:
        session.execute(request.param)
        session.execute("PREPARE TRANSACTION 'holder'")
    server.set(**{"pg_reaper.enabled": "on"})
    server.restart()
    yield server, server.connect()


def test_a_worker_that_finds_its_lease_locked_waits_without_sweeping_or_failing(
    held: tuple[Server, psycopg.Connection],
) -> None:
    server, session = held
    before = wait_for(server, "standby")
    overdue(server, "due")
    # Longer than the lease lasts.
    wait_until(
        lambda: server.value("SELECT now() > %s::timestamptz + interval '3 s'", [before.started_at]), bool, "3 s to pass"
    )
    after = wait_for_cycles(server, 3)
    assert (after.pid, after.state, after.errors) == (before.pid, "standby", 0)
    assert barriers(server) == {"due"}
    said = "WARNING:  pg_reaper: somebody has held the lease locked for"
    assert server.log().count(said) == 1, "it is said once, and not never"
    session.execute("ROLLBACK PREPARED 'holder'")
    wait_until_reaped(server, "due")
    assert status(server).pid == before.pid
    assert lease(server).term == 2
    assert "the lease is not locked by somebody else any more" in server.log()


@pytest.mark.parametrize("mode", ["fast", "smart"])
def test_the_server_stops_promptly_all_the_same(held: tuple[Server, psycopg.Connection], mode: str) -> None:
    server, session = held
    wait_for(server, "standby")
    session.close()
    server.stop(mode, timeout=AT_ONCE)


def test_the_extension_waits_for_the_holder_alone(held: tuple[Server, psycopg.Connection]) -> None:
    server, session = held
    before = wait_for(server, "standby")
    assert server.value("SELECT pg_terminate_backend(%s)", [before.pid])
    wait_until(server.worker_pids, lambda pids: before.pid not in pids, "the worker to leave", AT_ONCE)
    wait_for(server, "standby")
    session.execute("ROLLBACK PREPARED 'holder'")
    server.execute("SET statement_timeout = '8s'", "DROP EXTENSION pg_reaper")
    wait_until(server.worker_pids, lambda pids: not pids, "the worker to leave", AT_ONCE)


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS.keys())
def test_a_lease_that_was_locked_for_a_moment_is_not_left_for_a_whole_interval(
    make_server: Callable[..., Server], lock: str
) -> None:
    # As CREATE EXTENSION holds its locks a moment longer than it takes the worker to come.
    server = make_server({"pg_reaper.interval": "60s", "pg_reaper.lease_duration": "120s"})
    pid = wait_for(server, "leader").pid
    server.set(**{"pg_reaper.enabled": "off"})
    wait_for(server, "disabled")
    with server.connect(autocommit=False) as session:
        session.execute(lock)
        server.set(**{"pg_reaper.enabled": "on"})
        wait_for(server, "standby")
        session.rollback()
    assert wait_for(server, "leader", timeout=30).pid == pid
