"""Several workers in one database: one lease, one leader."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, PATIENT, Gate, Lease, Reaping, barriers, lease, overdue, wait_until_reaped, watch_lease,
    watch_reaping,
)  # fmt: skip
from harness.twins import ROOM, by_pid, leaders, start_twins, wait_for_leader


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    # The lease is far too long to run out during a test: whoever takes over was handed it.
    return make_server({**PATIENT, **ROOM, "pg_reaper.enabled": "off"})


def pid_of(leader: str) -> int:
    """The process id in a leader's id, which reads ``host:port/database/pid@start``."""
    return int(leader.split("/")[2].split("@")[0])


def assert_one_leader_a_term(moves: list[Lease]) -> None:
    """Terms rise by one with every acquisition, and a lease was free before it was taken."""
    acquired = [move for move in moves if move.leader]
    assert [move.term for move in acquired] == list(range(1, len(acquired) + 1)), moves
    assert all(moves[n - 1].leader == "" for n, move in enumerate(moves) if n and move.leader), moves
    assert len({move.leader for move in acquired}) == len(acquired), f"an id came twice: {moves}"


def assert_reaped_by_leaders(reapings: list[Reaping]) -> None:
    """Whoever deleted a row held the lease in that very transaction."""
    wrong = [reaping for reaping in reapings if pid_of(reaping.leader) != reaping.pid]
    assert not wrong, wrong


def test_of_many_rivals_for_a_free_lease_one_leads_and_hands_over_to_another(server: Server) -> None:
    rivals = start_twins(server, 20) + server.worker_pids()[:1]
    assert {row.state for row in by_pid(server).values()} == {"disabled"}
    moves, reapings = watch_lease(server), watch_reaping(server)

    # The reload wakes them all in one instant.
    server.set(**{"pg_reaper.enabled": "on"})
    leader = wait_for_leader(server)
    wait_until(lambda: {row.state for row in by_pid(server).values()}, lambda all: "disabled" not in all, "the race")
    assert len(moves()) == 1

    for turn in range(8):
        overdue(server, f"orphan {turn}")
        wait_until_reaped(server, f"orphan {turn}")
        os.kill(leader, signal.SIGTERM)
        leader = wait_for_leader(server, other_than=leader, timeout=AT_ONCE)
    assert leader in [*rivals, *server.worker_pids()]
    assert_one_leader_a_term(moves())
    assert len([move for move in moves() if move.leader]) == 9
    assert_reaped_by_leaders(reapings())
    assert len({reaping.pid for reaping in reapings()}) == 8


def test_a_leader_terminated_in_a_batch_hands_over_and_its_batch_is_done_by_the_next(server: Server) -> None:
    start_twins(server)
    moves, reapings = watch_lease(server), watch_reaping(server)
    gate = Gate(server, "gate")
    overdue(server, "gate", "second")
    server.set(**{"pg_reaper.enabled": "on"})
    first = gate.wait_for_arrival()
    os.kill(first, signal.SIGTERM)
    second = wait_until(gate.wait_for_arrival, lambda pid: pid != first, "the rival at the gate", AT_ONCE)
    assert leaders(server) == [second]
    gate.open()
    wait_until_reaped(server, "gate", "second")
    assert {reaping.pid for reaping in reapings()} == {second}
    assert_one_leader_a_term(moves())


def test_standbys_neither_sweep_nor_touch_the_lease(server: Server) -> None:
    twins = start_twins(server, 2)
    server.set(**{"pg_reaper.enabled": "on"})
    leader = wait_for_leader(server)
    reapings = watch_reaping(server)
    for turn in range(20):
        overdue(server, f"orphan {turn}")
        wait_until_reaped(server, f"orphan {turn}")
    assert {reaping.pid for reaping in reapings()} == {leader}
    assert lease(server).term == 1
    standby = [row for pid, row in by_pid(server).items() if pid != leader]
    assert len(standby) == len(twins)
    assert all(row.state == "standby" and row.term is None and row.errors == 0 for row in standby), standby


def test_a_disabled_leader_and_its_rivals_all_let_go(server: Server) -> None:
    start_twins(server, 2)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_for_leader(server)
    server.set(**{"pg_reaper.enabled": "off"})
    wait_until(lambda: {row.state for row in by_pid(server).values()}, {"disabled"}.__eq__, "all to be disabled")
    assert lease(server).leader == ""
    overdue(server, "orphan")
    before = {pid: row.last_cycle for pid, row in by_pid(server).items()}
    wait_until(
        lambda: by_pid(server),
        lambda rows: all(rows[pid].last_cycle > cycle for pid, cycle in before.items()),
        "every worker to turn a cycle",
    )
    assert barriers(server) == {"orphan"}
