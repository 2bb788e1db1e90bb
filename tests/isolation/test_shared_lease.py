"""An outside reaper and pg_reaper share one lease, in a table of the application's without terms."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest

from harness import Server, wait_until
from harness.outside_reaper import (
    LONG, SHARED, OutsideReaper, is_reapers, make_lease_table, shared_lease, wait_for_reaper, watch_moves,
    watch_reaping,
)  # fmt: skip
from harness.reaper import AT_ONCE, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped

INTERVAL = timedelta(milliseconds=100)
WINDOW = timedelta(seconds=3)
SHORT = {**SHARED, "pg_reaper.interval": "100ms", "pg_reaper.lease_duration": "3s"}


@pytest.fixture
def shared(make_server: Callable[..., Server]) -> Callable[..., Server]:
    """Makes a server whose worker is idle until it is enabled, and the table of the lease."""

    def make(settings: dict[str, str]) -> Server:
        server = make_server({**settings, "pg_reaper.enabled": "off"})
        make_lease_table(server)
        return server

    return make


def enable(server: Server, on: bool = True) -> None:
    server.set(**{"pg_reaper.enabled": "on" if on else "off"})


def test_while_the_outside_reaper_holds_a_fresh_lease_pg_reaper_stands_by_and_reaps_nothing(
    shared: Callable[..., Server],
) -> None:
    server = shared(LONG)
    outside = OutsideReaper(server)
    assert outside.acquire()
    overdue(server, "due")
    enable(server)
    wait_for(server, "standby")
    taken = shared_lease(server)
    wait_for_cycles(server, 10)
    assert (status(server).state, status(server).errors) == ("standby", 0)
    assert barriers(server) == {"due"}
    assert shared_lease(server) == taken
    # A renewal keeps it so, and the row of pg_reaper's own does not matter.
    assert outside.renew()
    assert lease(server).term == 0
    wait_for_cycles(server, 3)
    assert barriers(server) == {"due"}


def test_a_released_lease_is_taken_over_at_once(shared: Callable[..., Server]) -> None:
    server = shared(LONG)
    outside = OutsideReaper(server)
    outside.acquire()
    overdue(server, "due")
    enable(server)
    wait_for(server, "standby")
    assert outside.release()
    wait_until_reaped(server, "due", timeout=AT_ONCE)
    assert is_reapers(shared_lease(server).leader, status(server).pid)
    assert not outside.acquire() and not outside.renew() and not outside.release()


def test_a_stale_lease_is_taken_over_after_a_window_and_an_interval(shared: Callable[..., Server]) -> None:
    server = shared(SHORT)
    reapings = watch_reaping(server)
    outside = OutsideReaper(server, WINDOW)
    overdue(server, "due")
    enable(server)
    wait_for_reaper(server)
    enable(server, on=False)
    for turn in range(3):
        outside.wait_to_acquire()
        taken = shared_lease(server)
        overdue(server, f"due {turn}")
        enable(server)
        wait_until_reaped(server, f"due {turn}")
        took = reapings()[-1].at - taken.acquired_at
        assert took > WINDOW, "reaped while the other's lease was fresh"
        assert took < WINDOW + INTERVAL + timedelta(seconds=AT_ONCE)
        assert not outside.renew(), "it believes that it leads still"
        enable(server, on=False)
        wait_for(server, "disabled")


def disable(server: Server) -> None:
    enable(server, on=False)


def stop(server: Server) -> None:
    assert server.value("SELECT pg_reaper_stop()") == 1


@pytest.mark.parametrize("give_up", [disable, stop])
def test_a_lease_that_pg_reaper_gives_up_is_free_at_once(
    shared: Callable[..., Server], give_up: Callable[[Server], None]
) -> None:
    server = shared(LONG)
    enable(server)
    wait_for_reaper(server)
    outside = OutsideReaper(server)
    assert not outside.acquire()
    give_up(server)
    outside.wait_to_acquire(AT_ONCE)
    assert shared_lease(server).leader == "outside"


def test_a_worker_that_is_terminated_frees_the_lease(shared: Callable[..., Server]) -> None:
    server = shared(LONG)
    enable(server)
    first = wait_for_reaper(server)
    moves = watch_moves(server)
    os.kill(wait_for(server, "leader").pid, signal.SIGTERM)
    wait_for_reaper(server, other_than=first, timeout=AT_ONCE)
    hands = [move.leader for move in moves() if move.leader != first]
    assert hands[0] == "", "its successor cannot have waited for a window of a minute"
    assert is_reapers(hands[1])


@pytest.mark.parametrize("mode", ["smart", "fast"])
def test_a_server_that_stops_leaves_the_lease_free(shared: Callable[..., Server], mode: str) -> None:
    server = shared(LONG)
    enable(server)
    wait_for_reaper(server)
    server.stop(mode)
    server.configure({"pg_reaper.databases": ""})  # Nobody is to take it at the start.
    server.start()
    assert shared_lease(server).leader == ""
    assert OutsideReaper(server).acquire()


def test_an_extension_that_is_dropped_leaves_the_lease_free(shared: Callable[..., Server]) -> None:
    server = shared(LONG)
    enable(server)
    wait_for_reaper(server)
    server.execute("DROP EXTENSION pg_reaper")
    OutsideReaper(server).wait_to_acquire(AT_ONCE)


def test_each_acquisition_has_an_id_of_its_own_and_no_term(shared: Callable[..., Server]) -> None:
    server = shared(LONG)
    moves, outside = watch_moves(server), OutsideReaper(server)
    seen = []
    for turn in range(9):
        enable(server)
        seen.append(wait_for_reaper(server))
        row = wait_until(
            lambda: status(server), lambda row: (row.state, row.leader) == ("leader", seen[-1]), "the status to follow"
        )
        assert row.term is None
        if turn % 3 == 0:
            os.kill(row.pid, signal.SIGTERM)
            wait_for_reaper(server, other_than=seen[-1])
        if turn % 3 == 1:
            server.execute("BEGIN; DROP EXTENSION pg_reaper; CREATE EXTENSION pg_reaper; COMMIT")
            seen.append(wait_for_reaper(server, other_than=seen[-1]))
        enable(server, on=False)
        outside.wait_to_acquire(AT_ONCE)
        outside.release()
    acquired, last = [], ""
    for move in moves():
        if move.leader != last and is_reapers(move.leader):
            acquired.append(move.leader)
        last = move.leader
    assert len(acquired) >= 12
    assert len(set(acquired)) == len(acquired), f"an id came twice: {acquired}"
    assert lease(server).term == 0, "the lease of its own was touched"
