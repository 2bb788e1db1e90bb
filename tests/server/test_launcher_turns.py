"""Fewer worker slots than databases: they take turns, and none is forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from harness import Server, wait_until
from harness.twins import start_twins
from scenery import log
from scenery.fleet import TALKATIVE, make_database, served, until_leading, until_served, until_swept, workers

NAMES = ["one", "two", "three", "four", "five"]
FULL = "pg_reaper: no worker slot is free"
ROOM_AGAIN = "pg_reaper: every database has its worker again"


@pytest.fixture
def crowded(make_server: Callable[..., Server]) -> Server:
    """A server with five databases to serve, and room for the launcher and two workers."""
    server = make_server(
        # PostgreSQL has one of its own, unless it is told not to.
        {**TALKATIVE, "max_worker_processes": "3", "max_logical_replication_workers": "0",
         "max_parallel_workers": "0", "pg_reaper.databases": "one, two, three, four, five"},
        extension=False,
    )  # fmt: skip
    for name in NAMES:
        make_database(server, name)
    return server


def complaints(server: Server) -> list[log.Entry]:
    return log.warnings(server.log(), FULL)


def test_each_database_is_swept_again_and_again(crowded: Server) -> None:
    for _ in range(3):
        until_swept(crowded, *NAMES, timeout=60)
        assert len(workers(crowded)) <= 2
    (complaint,) = complaints(crowded)
    assert "max_worker_processes" in complaint.hint
    assert ROOM_AGAIN not in crowded.log()


def test_no_database_has_more_turns_than_another(crowded: Server) -> None:
    # From the first round in which all are known.
    until_swept(crowded, *NAMES, timeout=60)
    turns: list[str] = []

    def watch() -> list[str]:
        for entry in log.entries(crowded.log()):
            if entry.message.startswith("pg_reaper acquired the lease"):
                turns.append(entry.message.split("/")[1])
        found, turns[:] = list(turns), []
        return found

    before = len(watch())
    told = wait_until(watch, lambda found: len(found) >= before + 15, "fifteen turns", 60)[before : before + 15]
    # Two are served at a time, so that one may be ahead of another by a turn.
    counted = sorted(told.count(name) for name in NAMES)
    assert counted[0] >= 2 and counted[-1] <= 4, told


def test_whoever_makes_room_releases_its_lease(crowded: Server) -> None:
    until_swept(crowded, *NAMES, timeout=60)
    assert "could not release" not in crowded.log()
    released = [e for e in log.entries(crowded.log()) if e.message.startswith("pg_reaper released term")]
    assert len(released) >= 3
    # Nobody had to wait for a lease to run out.
    assert log.warnings(crowded.log(), "stepped down") == []


def test_a_line_says_when_there_is_room_for_all_again(crowded: Server) -> None:
    until_swept(crowded, *NAMES, timeout=60)
    mark = crowded.log_mark()
    crowded.set(**{"pg_reaper.databases": "four, five"})
    wait_until(lambda: crowded.log_since(mark), lambda text: ROOM_AGAIN in text, "the line")
    until_served(crowded, ["five", "four"])
    pids = workers(crowded)
    until_swept(crowded, "four", "five")
    assert workers(crowded) == pids, "they went on taking turns"
    # Crowded again, it says so again.
    crowded.set(**{"pg_reaper.databases": "three, four, five"})
    until_swept(crowded, "three", "four", "five", timeout=60)
    assert len(complaints(crowded)) == 2
    assert crowded.log_since(mark).count(ROOM_AGAIN) == 1


def test_no_slot_at_all_crashes_nothing_and_heals_with_the_next_start(make_server: Callable[..., Server]) -> None:
    server = make_server({"max_worker_processes": "1", "max_logical_replication_workers": "0"})
    launcher = server.launcher_pid()
    (complaint,) = wait_until(lambda: complaints(server), bool, "the warning")
    assert "1 databases wait" in complaint.message or "1 database waits" in complaint.message
    server.execute("CREATE DATABASE another")
    server.set(log_checkpoints=True)
    assert server.value("SELECT pg_reaper_sweep()") == 0
    assert server.launcher_pid() == launcher
    server.configure({"max_worker_processes": "8"})
    server.restart()
    until_leading(server, "postgres")


def test_slots_that_others_have_taken_are_asked_for_again(make_server: Callable[..., Server]) -> None:
    server = make_server(
        {"max_worker_processes": "2", "max_logical_replication_workers": "0", "pg_reaper.databases": "another"}
    )
    # The one free slot goes to a worker that the launcher knows nothing of.
    (other,) = start_twins(server)
    make_database(server, "another")
    wait_until(lambda: complaints(server), bool, "the warning")
    assert served(server) == ["postgres"]
    server.execute(f"SELECT pg_terminate_backend({other})")
    until_leading(server, "another")
    assert len(complaints(server)) == 1
    wait_until(server.log, lambda text: ROOM_AGAIN in text, "the line that there is room")


def turns(text: str) -> list[timedelta]:
    """How long workers served before they made room, of those that a log tells whole."""
    line = r"^(\S+ \S+) UTC \[(\d+)\] LOG:  pg_reaper worker "
    began = {pid: datetime.fromisoformat(at) for at, pid in re.findall(line + "started", text, re.M)}
    ended = {pid: datetime.fromisoformat(at) for at, pid in re.findall(line + "leaves: it was told to", text, re.M)}
    return [ended[pid] - began[pid] for pid in began if pid in ended]


def test_turns_last_an_interval_and_not_much_longer(crowded: Server) -> None:
    crowded.set(**{"pg_reaper.lease_duration": "30s"})
    crowded.set(**{"pg_reaper.interval": "3s"})
    mark = crowded.log_mark()
    told = wait_until(lambda: turns(crowded.log_since(mark)), lambda now: len(now) >= 4, "four turns", 60)
    assert min(told) >= timedelta(seconds=2.9)
    # Two make room by turns, each when the other has.
    assert max(told) < timedelta(seconds=10)
