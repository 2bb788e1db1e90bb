"""A session that sits on the lease: the worker neither sweeps nor hangs, and heals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, PATIENT, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped,
)  # fmt: skip

LOCKS = {
    "the row": "SELECT FROM pg_reaper_lease FOR UPDATE",
    "the row, for a foreign key": "SELECT FROM pg_reaper_lease FOR KEY SHARE",
    "the table": "LOCK TABLE pg_reaper_lease",
}


@pytest.fixture(params=LOCKS.values(), ids=LOCKS.keys())
def locked(request: pytest.FixtureRequest) -> Iterator[Callable[[Server], psycopg.Connection]]:
    """Locks the lease of a server while its worker leads; the session that holds the lock."""

    def lock(server: Server) -> psycopg.Connection:
        session = server.connect(autocommit=False)
        # The worker is at the row itself, for a moment in every cycle.
        session.execute(request.param)
        return session

    yield lock


def test_while_the_lease_is_locked_the_worker_turns_without_sweeping(
    make_server: Callable[..., Server], locked: Callable[[Server], psycopg.Connection]
) -> None:
    server = make_server(PATIENT)
    before = wait_for(server, "leader")
    session = locked(server)
    wait_for(server, "standby")
    overdue(server, "due")
    wait_for_cycles(server, 5)
    assert barriers(server) == {"due"}
    session.rollback()
    wait_until_reaped(server, "due")
    # The lease had not run out: it was in doubt, and the term goes on.
    after = status(server)
    assert (after.pid, after.term) == (before.pid, before.term)


def test_a_lease_locked_for_longer_than_it_lasts_is_given_up_and_taken_anew(
    make_server: Callable[..., Server], locked: Callable[[Server], psycopg.Connection]
) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    session = locked(server)
    wait_until(server.log, lambda log: "stepped down from term 1: no renewal went through" in log, "trust to run out")
    overdue(server, "due")
    wait_for_cycles(server)
    assert barriers(server) == {"due"}
    session.rollback()
    wait_until_reaped(server, "due")
    after = wait_for(server, "leader")
    assert (after.pid, after.term) == (before.pid, before.term + 1)


def test_while_the_lease_is_locked_the_worker_leaves_at_once_when_told_to(
    make_server: Callable[..., Server], locked: Callable[[Server], psycopg.Connection]
) -> None:
    server = make_server(PATIENT)
    before = wait_for(server, "leader")
    session = locked(server)
    wait_for(server, "standby")
    server.execute(f"SELECT pg_terminate_backend({before.pid})")
    wait_until(server.worker_pids, lambda pids: before.pid not in pids, "the worker to leave", AT_ONCE)
    # It could not give the lease back, and says how long that will take to heal.
    wait_until(server.log, lambda log: "could not release term 1" in log and "after 60s" in log, "the log to say so")
    session.rollback()
    assert lease(server).leader == before.leader
