"""The launcher ends and comes back: the workers go on, and the next launcher finds them there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, Gate, live, overdue, status, wait_for, wait_until_reaped
from scenery.fleet import (
    TALKATIVE, left_in, make_database, starts, until_leading, until_served, until_swept, workers,
)  # fmt: skip


@pytest.fixture
def three(make_server: Callable[..., Server]) -> Server:
    """A server with a worker in each of three databases."""
    server = make_server(TALKATIVE)
    make_database(server, "one")
    make_database(server, "two")
    until_leading(server, "one", "two", "postgres")
    return server


def launcher(server: Server, other_than: int | None = None) -> int:
    """The process id of the launcher, which is another one."""
    pid = wait_until(server.launcher_pid, lambda pid: pid not in (None, other_than), "a launcher")
    assert pid is not None
    return pid


def end_launcher(server: Server) -> int:
    """Terminates the launcher, and waits for the next one; its process id."""
    pid = launcher(server)
    assert server.value("SELECT pg_terminate_backend(%s)", [pid])
    return launcher(server, other_than=pid)


def test_it_comes_back_and_starts_no_second_workers(three: Server) -> None:
    before, mark = workers(three), three.log_mark()
    for _ in range(3):
        end_launcher(three)
    # That the last one is at work is shown by what it does for somebody new.
    make_database(three, "new")
    until_leading(three, "new")
    assert before.items() <= workers(three).items()
    until_served(three, ["new", "one", "postgres", "two"])
    # The new database may be looked into before the extension is there.
    assert starts(three, mark) <= 2
    until_swept(three, "one", "two", "new", "postgres")


def test_the_workers_sweep_while_there_is_none(three: Server) -> None:
    os.kill(launcher(three), signal.SIGSTOP)
    until_swept(three, "one", "two", "postgres")
    os.kill(launcher(three), signal.SIGCONT)


def test_a_worker_that_ends_while_there_is_none_is_replaced_by_the_next(three: Server) -> None:
    old = launcher(three)
    os.kill(old, signal.SIGSTOP)
    (pid,) = workers(three, "one")
    three.execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: workers(three, "one"), lambda left: not left, "the worker to leave", AT_ONCE)
    os.kill(old, signal.SIGTERM)
    os.kill(old, signal.SIGCONT)
    wait_for(three, "leader", database="one")
    until_served(three, ["one", "postgres", "two"])


def test_the_next_one_still_tells_those_to_leave_that_it_did_not_start(three: Server) -> None:
    end_launcher(three)
    three.set(**{"pg_reaper.databases": "one"})
    until_served(three, ["one"], AT_ONCE)
    three.set(**{"pg_reaper.databases": None})
    until_leading(three, "one", "two", "postgres")
    until_served(three, ["one", "postgres", "two"])


def test_the_next_one_restarts_those_that_it_did_not_start(three: Server) -> None:
    end_launcher(three)
    (pid,) = workers(three, "two")
    three.execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: list(workers(three, "two")), lambda now: now not in ([], [pid]), "another worker")
    until_served(three, ["one", "postgres", "two"])


def test_ended_with_all_workers_at_once_everything_is_back(three: Server) -> None:
    before = set(workers(three))
    three.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper%'")
    wait_until(lambda: before & set(workers(three)), lambda left: not left, "the workers to leave", AT_ONCE)
    until_leading(three, "one", "two", "postgres")
    until_served(three, ["one", "postgres", "two"])
    until_swept(three, "one", "two", "postgres")


def test_killed_in_the_middle_of_a_sweep_everything_is_back_after_the_crash(make_server: Callable[..., Server]) -> None:
    server = make_server({"restart_after_crash": "on"})
    make_database(server, "other")
    before = until_leading(server, "other", "postgres")
    for _ in range(2):
        gate = Gate(server, "gate")
        live(server, "live")
        overdue(server, "in the batch", "gate")
        gate.wait_for_arrival()
        os.kill(launcher(server), signal.SIGKILL)

        def back() -> bool:
            try:
                pids = workers(server)
                return len(pids) == 2 and not {row.pid for row in before.values()} & set(pids)
            except psycopg.OperationalError:
                return False

        wait_until(back, bool, "the workers after the crash")
        before = until_leading(server, "other", "postgres")
        wait_until_reaped(server, "in the batch", "gate")
        assert left_in(server, "postgres") == ["live"]
        server.execute("DELETE FROM pg_barrier_state")
    until_swept(server, "other")
    assert status(server).term == 3
    until_served(server, ["other", "postgres"])


def test_a_cancelled_launcher_goes_on(three: Server) -> None:
    pid = launcher(three)
    three.execute(f"SELECT pg_cancel_backend({pid})")
    make_database(three, "new")
    until_leading(three, "new")
    assert launcher(three) == pid
