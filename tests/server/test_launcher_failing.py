"""A worker that cannot start: it is tried again later and later, and the others do not suffer."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, wait_for
from scenery import log
from scenery.fleet import make_database, until_leading, until_swept, workers

MESSAGE = 'pg_reaper: the worker of database "bad" did not start'


class Failing(NamedTuple):
    """A server with a database that nobody can connect to, until it is mended."""

    server: Server
    # What PostgreSQL looks for in the folder of a database before it lets anybody in.
    needed: Path
    away: Path

    def refused(self) -> list[datetime]:
        """When a worker failed to start."""
        lines = re.findall(r'^(\S+ \S+) UTC \[\d+\] FATAL:  "base/\d+" is not a valid data directory',
                           self.server.log(), re.M)  # fmt: skip
        return [datetime.fromisoformat(line) for line in lines]

    def until_refused(self, times: int) -> list[datetime]:
        """Waits until workers have failed to start so often; when."""
        return wait_until(self.refused, lambda found: len(found) >= times, f"{times} tries", 60)

    def mend(self) -> None:
        self.away.rename(self.needed)

    def spoil(self) -> None:
        """Nobody can connect from now on, and whoever has a worker there loses it."""
        self.needed.rename(self.away)
        for pid in workers(self.server, "bad"):
            self.server.execute(f"SELECT pg_terminate_backend({pid})")


@pytest.fixture
def failing(make_server: Callable[..., Server]) -> Failing:
    """``bad`` cannot be connected to, and the other databases can."""
    server = make_server()
    make_database(server, "good")
    make_database(server, "bad")
    until_leading(server, "good", "bad", "postgres")
    oid = server.value("SELECT oid FROM pg_database WHERE datname = 'bad'")
    needed = server.data / "base" / str(oid) / "PG_VERSION"
    case = Failing(server, needed, needed.with_name("away"))
    case.spoil()
    return case


def test_it_is_tried_later_and_later_and_told_once(failing: Failing) -> None:
    times = failing.until_refused(4)
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    # 1, 2 and 4 s, each off by a quarter at most, in which a start takes its time too.
    assert gaps[0] >= timedelta(seconds=0.7)
    assert gaps[1] >= timedelta(seconds=1.4)
    assert gaps[2] >= timedelta(seconds=2.9)
    (warning,) = log.warnings(failing.server.log(), MESSAGE)
    assert re.search(r"next try in \d+\.\d s", warning.message)


def test_other_databases_are_served_meanwhile(failing: Failing) -> None:
    failing.until_refused(2)
    make_database(failing.server, "new")
    until_leading(failing.server, "good", "postgres", "new")
    until_swept(failing.server, "good", "postgres", "new", timeout=AT_ONCE)


def test_it_heals_by_itself_and_says_so(failing: Failing) -> None:
    failing.until_refused(2)
    failing.mend()
    server = failing.server
    wait_for(server, "leader", database="bad")
    times = len(failing.refused())
    line = f'the worker of database "bad" has started, after {times} failures in a row'
    wait_until(server.log, lambda text: line in text, "the line")
    until_swept(server, "bad")
    # Failing anew is told anew.
    mark = server.log_mark()
    failing.spoil()
    wait_until(lambda: log.warnings(server.log_since(mark), MESSAGE), bool, "another warning")


def test_a_start_by_hand_is_a_try_at_once(failing: Failing) -> None:
    failing.mend()
    session = failing.server.connect("bad")
    wait_for(failing.server, "leader", database="bad")
    failing.spoil()
    failing.until_refused(4)
    # The next would come about eight seconds later.
    failing.mend()
    session.execute("SET statement_timeout = '4s'")
    row = session.execute("SELECT pg_reaper_start()").fetchone()
    assert row is not None and list(workers(failing.server, "bad")) == [row[0]]


def test_the_status_tells_of_it(failing: Failing) -> None:
    failing.until_refused(2)
    row = wait_for(failing.server, "down", database="bad")
    assert (row.pid, row.term) == (None, None)
    failing.mend()
    assert wait_for(failing.server, "leader", database="bad").term == 2


def test_a_database_without_room_for_connections_is_served(make_server: Callable[..., Server]) -> None:
    # A limit for sessions of users is none for the worker.
    server = make_server()
    make_database(server, "small")
    server.execute("ALTER DATABASE small CONNECTION LIMIT 0")
    row = wait_for(server, "leader", database="small")
    server.execute(f"SELECT pg_terminate_backend({row.pid})")
    wait_until(
        lambda: wait_for(server, "leader", database="small").pid, lambda pid: pid != row.pid, "another worker"
    )
