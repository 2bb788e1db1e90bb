"""An outside reaper that stands still at random, as a client on a busy machine does, and pg_reaper.

Checked twice: by what the shared row says within the transaction that deletes, and by the order of
the commits, which knows nothing of locks.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from harness import Server, wait_until
from harness.outside_reaper import (
    SHARED, OutsideReaper, Reaping, is_reapers, make_lease_table, wait_for_reaper, watch_moves, watch_reaping,
)  # fmt: skip
from harness.reaper import status

WINDOW = timedelta(seconds=1)
SETTINGS = {
    **SHARED,
    "pg_reaper.interval": "50ms",
    "pg_reaper.lease_duration": "1s",
    "track_commit_timestamp": "on",
    "max_locks_per_transaction": "64",
}
OUTSIDE_TERMS, REAPER_TERMS = 4, 4


class Erratic(threading.Thread):
    """An outside reaper that pauses for anything up to two windows between any two of its moves."""

    def __init__(self, server: Server, seed: int) -> None:
        super().__init__(daemon=True)
        self.outside = OutsideReaper(server, WINDOW)
        self.random = random.Random(seed)
        self.enough = threading.Event()
        self.lost = self.released = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                self.turn()
        except BaseException as error:
            self.error = error

    def pause(self, most: timedelta) -> None:
        self.enough.wait(self.random.uniform(0, most.total_seconds()))

    def turn(self) -> None:
        """One holding of the lease, to its release, or until it is found lost."""
        if not self.outside.acquire():
            return self.pause(WINDOW / 20)
        for _ in range(self.random.randint(0, 3)):
            # Mostly in time, and now and then far too late.
            self.pause(WINDOW * self.random.choice((0.3, 0.3, 2)))
            if not self.outside.renew():
                self.lost += 1
                return
        self.pause(WINDOW / 3)
        self.released += self.outside.release()
        self.pause(WINDOW)


class Commit:
    """The commit of a transaction that changed the shared row, or reaped."""

    def __init__(self, at: Any, change: Any) -> None:
        self.at, self.change = at, change


def in_order(server: Server, changes: list[Any]) -> list[Commit]:
    """Changes by the time of their commits."""
    transactions = sorted({change.transaction for change in changes})
    times = dict(
        server.query(
            "SELECT t, pg_xact_commit_timestamp((t::bigint & 4294967295)::text::xid) FROM unnest(%s::text[]) AS t",
            [transactions],
        )
    )
    return sorted((Commit(times[change.transaction], change) for change in changes), key=lambda commit: commit.at)


def terms(commits: list[Commit]) -> list[str]:
    """Who held the lease, one entry for each time that it changed hands."""
    hands = [""]
    for commit in commits:
        if commit.change.leader != hands[-1]:
            hands.append(commit.change.leader)
    return [leader for leader in hands if leader]


@pytest.mark.parametrize("worker_pauses", [False, True], ids=["the other pauses", "both pause"])
@pytest.mark.parametrize("seed", [1, 2])
def test_pg_reaper_commits_no_batch_while_the_lease_of_the_other_is_fresh(
    make_server: Callable[..., Server], seed: int, worker_pauses: bool
) -> None:
    server = make_server({**SETTINGS, "pg_reaper.batch_size": "3"})
    make_lease_table(server)
    wait_for_reaper(server)
    moves, reapings = watch_moves(server), watch_reaping(server)
    dice = random.Random(seed)
    erratic = Erratic(server, seed)
    erratic.start()
    armed = 0

    def go_on() -> tuple[int, int, int]:
        nonlocal armed
        server.query(
            "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
            " SELECT 'b' || n, 1, now() - interval '1 day', now() FROM generate_series(%s::int, %s::int) AS n",
            [armed, armed + 4],
        )
        armed += 5
        if worker_pauses and dice.random() < 0.1:
            pid = status(server).pid
            os.kill(pid, signal.SIGSTOP)
            erratic.enough.wait(dice.uniform(0, 2 * WINDOW.total_seconds()))
            os.kill(pid, signal.SIGCONT)
        assert erratic.error is None, erratic.error
        held = terms(in_order(server, moves()))
        ours = len([leader for leader in held if is_reapers(leader)])
        return ours, len(held) - ours, erratic.lost

    try:
        wait_until(
            go_on,
            lambda seen: seen[0] >= REAPER_TERMS and seen[1] >= OUTSIDE_TERMS and seen[2] > 0,
            "enough changes of hands (ours, the other's, lost by it)",
            60,
        )
    finally:
        erratic.enough.set()
        erratic.join()
    assert len(reapings()) > 0
    assert_fenced(server, reapings(), in_order(server, moves() + reapings()))
    ours = [leader for leader in terms(in_order(server, moves())) if is_reapers(leader)]
    assert len(set(ours)) == len(ours), f"an id came twice: {ours}"


def assert_fenced(server: Server, reapings: list[Reaping], commits: list[Commit]) -> None:
    # Within the transaction that deleted it.
    wrong = [reaping for reaping in reapings if not is_reapers(reaping.leader, reaping.pid)]
    assert not wrong, wrong
    # By what had been committed before it.
    leader, stamp = None, None
    for commit in commits:
        if not isinstance(commit.change, Reaping):
            leader, stamp = commit.change.leader, commit.change.acquired_at
        elif leader is not None:
            fresh = f"stamped {commit.at - stamp} before"
            assert is_reapers(leader, commit.change.pid), f"{commit.change} committed in the lease of {leader!r}, {fresh}"
            assert leader == commit.change.leader
