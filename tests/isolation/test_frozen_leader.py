"""A leader that stands still (a paused machine, a stalled disk) while its lease runs out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest

from harness import Server, wait_until
from harness.frozen import frozen, frozen_at_rest
from harness.reaper import (
    Gate, lease, overdue, wait_for, wait_until_reaped, waits_for_lock, watch_lease, watch_reaping,
)  # fmt: skip
from harness.twins import ROOM, by_pid, start_twins, wait_for_leader

LEASE = timedelta(seconds=4)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server({**ROOM, "pg_reaper.lease_duration": f"{LEASE.seconds}s"})


def wait_until_stale(server: Server, lease: timedelta = LEASE) -> None:
    """Waits until the stamp of the lease is older than a lease."""
    age = "SELECT clock_timestamp() - acquired_at FROM pg_reaper_lease"
    wait_until(lambda: server.value(age), lambda age: age > lease, "the lease to run out")


def test_a_frozen_leader_is_replaced_and_steps_down_when_it_goes_on(server: Server) -> None:
    first = wait_for_leader(server)
    (rival,) = start_twins(server)
    moves, reapings = watch_lease(server), watch_reaping(server)
    with frozen_at_rest(server, first):
        last_stamp = lease(server).acquired_at
        overdue(server, "while it was frozen")
        wait_until_reaped(server, "while it was frozen")
        (taken,) = moves()
        assert taken.term == 2
        assert taken.acquired_at - last_stamp >= LEASE, "the lease was taken before it had run out"
    wait_until(lambda: by_pid(server)[first].state, "standby".__eq__, "the first leader to step down")
    assert f"[{first}] WARNING:  pg_reaper stepped down from term 1" in server.log()
    overdue(server, "afterwards")
    wait_until_reaped(server, "afterwards")
    assert {reaping.pid for reaping in reapings()} == {rival}
    # It is as good a standby as any.
    os.kill(rival, signal.SIGTERM)
    assert wait_for_leader(server, other_than=rival) == first
    assert [(move.term, move.leader == "") for move in moves()] == [(2, False), (2, True), (3, False)]


def test_while_a_batch_is_under_way_nobody_takes_the_lease_however_stale(server: Server) -> None:
    first = wait_for_leader(server)
    (rival,) = start_twins(server)
    moves, reapings = watch_lease(server), watch_reaping(server)
    gate = Gate(server, "gate")
    overdue(server, "gate")
    assert gate.wait_for_arrival() == first
    with frozen(first):
        wait_until_stale(server)
        stale = server.value("SELECT clock_timestamp()")
        for _ in range(5):
            row = wait_until(lambda: by_pid(server)[rival], lambda row: row.last_cycle > stale, "the rival to look")
            assert row.state == "standby"
            stale = row.last_cycle
        assert moves() == []
        gate.open()
    # Whether that batch went through or was cut short, it was one leader's alone.
    wait_until_reaped(server, "gate")
    (reaping,) = reapings()
    assert f"/{reaping.pid}@" in reaping.leader


def test_a_batch_that_was_frozen_is_not_blamed_on_a_function_of_the_table(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    # Both strikes of the statement limit are due at once when the process goes on: the function
    # had no chance to obey the first.
    first = wait_for_leader(server)
    gate = Gate(server, "gate")
    overdue(server, "gate")
    gate.wait_for_arrival()
    with frozen(first):
        wait_until_stale(server, timedelta(seconds=2))
        gate.open()
    wait_until_reaped(server, "gate")
    assert "swallowed the cancellation" not in server.log()


def test_a_leader_frozen_in_its_sweep_deletes_nothing_once_another_leads(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.lease_duration": f"{LEASE.seconds}s", "pg_reaper.enabled": "off"})
    reapings = watch_reaping(server)
    # There before the worker looks, or the snapshot that it takes before it waits would not show it.
    overdue(server, "due")
    blocker = server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_barrier_state")
    server.set(**{"pg_reaper.enabled": "on"})
    first = wait_for(server, "leader").pid
    # Past its renewal, the worker is about to read what is due; no batch has begun.
    wait_until(lambda: waits_for_lock(server, first), bool, "the worker to wait for the table")
    with frozen(first):
        wait_until_stale(server)
        server.execute(
            "UPDATE pg_reaper_lease SET leader = 'outside', term = term + 1, acquired_at = clock_timestamp()"
        )
        taken = lease(server)
        blocker.commit()
    wait_until_reaped(server, "due")
    (reaping,) = reapings()
    assert reaping.at - taken.acquired_at >= LEASE, "reaped in another's lease"
    assert lease(server).term == taken.term + 1
