"""Databases without the extension: looked into once, and no worker stays there."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import wait_for
from scenery.fleet import TALKATIVE, make_database, starts, until_all_are_known, until_leading, until_served, workers

BARE = 30


@pytest.fixture
def crowd(make_server: Callable[..., Server]) -> Server:
    """A server of many databases of which one has the extension; each of the others is known to have none."""
    server = make_server(TALKATIVE)
    mark = server.log_mark()
    for n in range(BARE):
        server.execute(f"CREATE DATABASE bare_{n} STRATEGY file_copy")
    until_all_are_known(server, BARE, mark)
    wait_for(server, "leader")
    return server


def test_many_databases_without_the_extension_cost_no_worker_and_one_look_each(crowd: Server) -> None:
    assert list(workers(crowd).values()) == ["postgres"]
    looks = starts(crowd)
    # One each, and one for whoever has it: at its announcement, or before that too.
    assert BARE < looks <= BARE + 2
    # Nor do censuses, reloads, and what happens to others cost more.
    make_database(crowd, "other")
    until_leading(crowd, "other")
    known = starts(crowd)
    assert looks < known <= looks + 2
    crowd.set(log_checkpoints=True)
    crowd.set(log_checkpoints=None)
    crowd.execute("DROP EXTENSION pg_reaper", dbname="other")
    until_served(crowd, ["postgres"])
    crowd.execute("CREATE DATABASE last")
    until_all_are_known(crowd, 1, crowd.log_mark())
    assert starts(crowd) == known + 1


def test_a_restart_looks_into_each_once_again(crowd: Server) -> None:
    mark = crowd.log_mark()
    crowd.restart()
    until_leading(crowd, "postgres")
    until_all_are_known(crowd, BARE, mark)
    make_database(crowd, "other")
    until_leading(crowd, "other")
    # The one look into `other` may come before its extension does.
    assert BARE + 2 <= starts(crowd, mark) <= BARE + 3
    until_served(crowd, ["other", "postgres"])


def test_the_launcher_takes_no_time_of_the_processor_while_there_is_nothing_to_do(crowd: Server) -> None:
    pid = crowd.launcher_pid()
    assert pid is not None
    began, turned = processor_time(pid), wait_for(crowd, "leader").last_cycle
    # By the clock of the worker, which turns ten times a second.
    wait_until(
        lambda: wait_for(crowd, "leader").last_cycle - turned, lambda passed: passed.total_seconds() > 6, "six seconds"
    )
    assert processor_time(pid) - began < 0.5


def processor_time(pid: int) -> float:
    """The seconds of processor time that a process has taken."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
