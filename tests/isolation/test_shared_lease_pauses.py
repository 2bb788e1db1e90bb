"""An outside reaper that stands still at random, as a client on a busy machine does, and pg_reaper.

Checked twice: by what the shared row says within the transaction that deletes, and by the order of
the commits, which knows nothing of locks.
"""

from __future__ import annotations

import itertools
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
    SHARED, Move, OutsideReaper, Reaping, is_reapers, make_lease_table, wait_for_reaper, watch_moves, watch_reaping,
)  # fmt: skip
from harness.reaper import status

WINDOW = timedelta(seconds=1)
SETTINGS = {
    **SHARED,
    "pg_reaper.interval": "50ms",
    "pg_reaper.lease_duration": "1s",
    "track_commit_timestamp": "on",
    "pg_reaper.log_limit": "0",
    "pg_reaper.batch_size": "3",
}

# What a run must have seen before it means something.
OUR_TERMS, ITS_TERMS, LOST_BY_IT = 4, 4, 2


class Erratic(threading.Thread):
    """An outside reaper that pauses for anything up to two windows between any two of its moves."""

    def __init__(self, server: Server, seed: int) -> None:
        super().__init__(daemon=True)
        self.outside = OutsideReaper(server, WINDOW)
        self.random = random.Random(seed)
        self.enough = threading.Event()
        self.acquired = self.lost = 0
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
        self.acquired += 1
        for _ in range(self.random.randint(0, 3)):
            # Mostly in time, and now and then far too late.
            self.pause(WINDOW * self.random.choice((0.3, 0.3, 4)))
            if not self.outside.renew():
                self.lost += 1
                return
        self.pause(WINDOW / 3)
        self.outside.release()
        self.pause(WINDOW / 2)


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
        if isinstance(commit.change, Move) and commit.change.leader != hands[-1]:
            hands.append(commit.change.leader)
    return [leader for leader in hands if leader]


def terminate(pid: int, _pause: float) -> None:
    """Its successor comes a second later; until then the lease is free."""
    os.kill(pid, signal.SIGTERM)


def freeze(pid: int, pause: float) -> None:
    """It stands still wherever it is."""
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(pause, os.kill, [pid, signal.SIGCONT]).run()


@pytest.mark.parametrize("disturb", [terminate, freeze])
@pytest.mark.parametrize("seed", [1, 2])
def test_pg_reaper_commits_no_batch_while_the_lease_of_the_other_is_fresh(
    make_server: Callable[..., Server], seed: int, disturb: Callable[[int, float], None]
) -> None:
    server = make_server(SETTINGS)
    make_lease_table(server)
    wait_for_reaper(server)
    moves, reapings = watch_moves(server), watch_reaping(server)
    session, dice, armed = server.connect(), random.Random(seed), itertools.count()
    erratic = Erratic(server, seed)
    erratic.start()

    def go_on() -> tuple[int, int, int]:
        names = [f"b{next(armed)}" for _ in range(5)]
        session.execute(
            "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
            " SELECT id, 1, now() - interval '1 day', now() FROM unnest(%s::text[]) AS id",
            [names],
        )
        leader = status(server)
        if leader and leader.state == "leader" and dice.random() < 0.1:
            disturb(leader.pid, dice.uniform(0, 2 * WINDOW.total_seconds()))
        assert erratic.error is None, erratic.error
        (ours,) = session.execute("SELECT count(DISTINCT leader) FROM moves WHERE leader LIKE '%#%'").fetchone()
        return ours, erratic.acquired, erratic.lost

    try:
        wait_until(
            go_on,
            lambda seen: seen[0] >= OUR_TERMS and seen[1] >= ITS_TERMS and seen[2] >= LOST_BY_IT,
            "the lease to change hands often (terms of ours, terms of the other's, lost by it)",
            90,
        )
    finally:
        erratic.enough.set()
        erratic.join()
    # In this order, since the worker goes on: each of these reapings comes after moves that are among those.
    reaped = reapings()
    commits = in_order(server, [*moves(), *reaped])
    assert len({reaping.leader for reaping in reaped}) > 1
    assert_fenced(reaped, commits)
    ours = [leader for leader in terms(commits) if is_reapers(leader)]
    assert len(set(ours)) == len(ours), f"an id came twice: {ours}"


def assert_fenced(reapings: list[Reaping], commits: list[Commit]) -> None:
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
