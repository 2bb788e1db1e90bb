"""A worker that stood still while the outside reaper took the lease: its old id is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from harness import Server, wait_until
from harness.frozen import frozen, frozen_at_rest
from harness.outside_reaper import (
    SHARED, TABLE, OutsideReaper, is_reapers, make_lease_table, shared_lease, wait_for_reaper, watch_moves,
    watch_reaping,
)  # fmt: skip
from harness.reaper import Gate, barriers, overdue, status, wait_for, wait_for_cycles, wait_until_reaped, waits_for_lock

WINDOW = timedelta(seconds=3)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Its worker is idle until it is enabled."""
    server = make_server({**SHARED, "pg_reaper.lease_duration": f"{WINDOW.seconds}s", "pg_reaper.enabled": "off"})
    make_lease_table(server)
    return server


def enable(server: Server) -> None:
    server.set(**{"pg_reaper.enabled": "on"})


def take_over(server: Server, outside: OutsideReaper) -> None:
    """The outside reaper takes the lease, and not before it is stale."""
    before = shared_lease(server)
    outside.wait_to_acquire()
    assert shared_lease(server).acquired_at - before.acquired_at >= WINDOW


def test_it_steps_down_when_it_goes_on_while_the_other_leads(server: Server) -> None:
    outside = OutsideReaper(server, WINDOW)
    enable(server)
    wait_for_reaper(server)
    pid = wait_for(server, "leader").pid
    with frozen_at_rest(server, pid):
        take_over(server, outside)
        overdue(server, "due")
        assert outside.renew()
    wait_until(lambda: (outside.renew(), status(server).state), (True, "standby").__eq__, "it to step down")
    for _ in range(3):
        wait_for_cycles(server, 1)
        assert outside.renew()
    assert barriers(server) == {"due"}
    assert f'[{pid}] WARNING:  pg_reaper stepped down from the lease {TABLE}: the lease is held by "outside"' in server.log()


def test_at_rest_over_a_take_over_and_a_give_back_it_comes_back_under_a_new_id(server: Server) -> None:
    outside = OutsideReaper(server, WINDOW)
    enable(server)
    old = wait_for_reaper(server)
    pid = wait_for(server, "leader").pid
    with frozen_at_rest(server, pid):
        take_over(server, outside)
        assert outside.release()
        moves, reapings = watch_moves(server), watch_reaping(server)
        overdue(server, "due")
    wait_until_reaped(server, "due")
    assert old not in {move.leader for move in moves()}
    (reaping,) = reapings()
    assert is_reapers(reaping.leader, pid) and reaping.leader != old


def test_in_a_sweep_over_a_take_over_and_a_give_back_nothing_commits_under_the_old_id(server: Server) -> None:
    outside = OutsideReaper(server, WINDOW)
    reapings = watch_reaping(server)
    # There before the worker looks, or the snapshot that it takes before it waits would not show it.
    overdue(server, "due")
    blocker = server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_barrier_state")
    enable(server)
    old = wait_for_reaper(server)
    pid = wait_for(server, "leader").pid
    # Past its renewal, the worker is about to read what is due; no batch has begun.
    wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the table")
    with frozen(pid):
        take_over(server, outside)
        assert outside.release()
        moves = watch_moves(server)
        blocker.commit()
    wait_until_reaped(server, "due")
    (reaping,) = reapings()
    assert is_reapers(reaping.leader, pid) and reaping.leader != old
    assert old not in {move.leader for move in moves()}


def test_in_a_batch_the_row_is_locked_and_the_other_waits_for_the_batch_to_end(server: Server) -> None:
    reapings = watch_reaping(server)
    gate = Gate(server, "gate")
    overdue(server, "gate")
    enable(server)
    pid = gate.wait_for_arrival()
    with frozen(pid):
        age = f"SELECT clock_timestamp() - acquired_at FROM {TABLE}"
        wait_until(lambda: server.value(age), lambda age: age > WINDOW, "the lease to be stale")
        held = shared_lease(server)
        assert is_reapers(held.leader, pid)
        rival = server.connect()
        rival.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            rival.execute(f"UPDATE {TABLE} SET leader = 'outside', acquired_at = now() WHERE leader <> ''")
        assert shared_lease(server) == held
        gate.open()
    # Whether that batch went through or was cut short, it was pg_reaper's alone.
    wait_until_reaped(server, "gate")
    (reaping,) = reapings()
    assert is_reapers(reaping.leader, reaping.pid)
