"""A reaper that is not ours shares the lease row: the first three columns are its protocol too.

The row is written by hand here, in the very moment a test wants it, as the outside reaper would
write it when it takes over, or as an operator's slip would.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import (
    PATIENT, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_for_sweep, wait_until_reaped,
    waits_for_lock, watch_reaping,
)  # fmt: skip

TAKE_OVER = "UPDATE pg_reaper_lease SET leader = 'outside', term = term + 1, acquired_at = clock_timestamp()"

# What the row may say that is not the worker's own term, however fresh its stamp.
NOT_OURS = {
    "another leader": TAKE_OVER,
    "another leader in the same term": "UPDATE pg_reaper_lease SET leader = 'outside', acquired_at = clock_timestamp()",
    "the same leader in a later term": "UPDATE pg_reaper_lease SET term = term + 1, acquired_at = clock_timestamp()",
    "the same leader in an earlier term": "UPDATE pg_reaper_lease SET term = term - 1, acquired_at = clock_timestamp()",
}


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server(PATIENT)


@pytest.fixture
def idle_server(make_server: Callable[..., Server]) -> Server:
    """Its worker has not swept yet, so its first sweep reads from the earliest deadline on."""
    return make_server({**PATIENT, "pg_reaper.enabled": "off"})


def in_the_middle_of_a_sweep(server: Server) -> psycopg.Connection:
    """Stops the worker after its renewal, about to read an overdue barrier; commit lets it go on."""
    # There before the worker looks, or the snapshot that it takes before it waits would not show it.
    overdue(server, "due")
    blocker = server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_barrier_state")
    server.set(**{"pg_reaper.enabled": "on"})
    pid = wait_for(server, "leader").pid
    wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the table")
    return blocker


def test_the_worker_leaves_a_lease_that_was_taken_until_it_has_run_out(make_server: Callable[..., Server]) -> None:
    duration = timedelta(seconds=3)
    server = make_server({"pg_reaper.lease_duration": "3s"})
    before = wait_for(server, "leader")
    reapings = watch_reaping(server)
    server.execute(TAKE_OVER)
    taken = lease(server)
    wait_for(server, "standby")
    assert "stepped down from term 1: the lease is held by" in server.log()
    overdue(server, "due")
    wait_until_reaped(server, "due")
    (reaping,) = reapings()
    assert reaping.at - taken.acquired_at >= duration
    after = wait_for(server, "leader")
    assert (after.pid, after.term) == (before.pid, 3)


@pytest.mark.parametrize("written", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_a_row_that_is_not_of_its_own_term_is_neither_renewed_nor_acted_upon(server: Server, written: str) -> None:
    wait_for(server, "leader")
    server.execute(written)
    taken = lease(server)
    wait_for(server, "standby")
    overdue(server, "due")
    wait_for_cycles(server, 5)
    assert lease(server) == taken
    assert barriers(server) == {"due"}
    server.execute("UPDATE pg_reaper_lease SET leader = ''")
    wait_until_reaped(server, "due")
    assert lease(server).term == taken.term + 1


@pytest.mark.parametrize("written", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_a_batch_does_not_commit_when_the_lease_was_taken_since_the_renewal(idle_server: Server, written: str) -> None:
    server = idle_server
    blocker = in_the_middle_of_a_sweep(server)
    server.execute(written)
    taken = lease(server)
    blocker.commit()
    wait_for(server, "standby")
    wait_for_cycles(server)
    assert barriers(server) == {"due"}
    assert lease(server) == taken


def test_a_batch_does_not_commit_while_somebody_is_taking_the_lease(idle_server: Server) -> None:
    server = idle_server
    blocker = in_the_middle_of_a_sweep(server)
    term = lease(server).term
    rival = server.connect(autocommit=False)
    rival.execute(TAKE_OVER)
    blocker.commit()
    wait_for(server, "standby")
    wait_for_cycles(server)
    assert barriers(server) == {"due"}
    # It was only in doubt: the rival gave up, and the term goes on.
    rival.rollback()
    wait_until_reaped(server, "due")
    wait_for_sweep(server)
    assert (status(server).state, status(server).term) == ("leader", term)
