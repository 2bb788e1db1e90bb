"""``pg_reaper_start()`` and ``pg_reaper_stop()`` with the preload: what they do, return and say."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, Gate, lease, overdue, status, wait_for, wait_until_reaped
from scenery.fleet import make_database, served, until_leading, until_served, until_swept, workers


class Answer(NamedTuple):
    """What a function returned, and its notices."""

    value: Any
    notices: list[str]


def ask(server: Server, function: str, **where: Any) -> Answer:
    """Calls a function in a session of its own."""
    notices: list[str] = []
    with psycopg.connect(**server.address(**where), autocommit=True) as session:
        session.add_notice_handler(lambda n: notices.append(f"{n.severity}: {n.message_primary}"))
        row = session.execute(f"SELECT {function}()").fetchone()
    assert row is not None
    return Answer(row[0], notices)


def stop(server: Server, **where: Any) -> Answer:
    return ask(server, "pg_reaper_stop", **where)


def start(server: Server, **where: Any) -> Answer:
    return ask(server, "pg_reaper_start", **where)


@pytest.fixture
def two(server: Server) -> Server:
    """A server with workers in two databases."""
    make_database(server, "other")
    until_leading(server, "other", "postgres")
    return server


def test_stop_ends_the_worker_of_this_database_releases_its_lease_and_says_so(two: Server) -> None:
    assert stop(two) == (1, ['NOTICE: the worker of database "postgres" has stopped'])
    # All of that was so on its return.
    assert served(two) == ["other"]
    assert lease(two).leader == ""
    row = status(two)
    assert (row.state, row.pid, row.term) == ("down", None, None)
    assert stop(two) == (0, ['NOTICE: no worker of database "postgres" was running; none starts'])
    until_swept(two, "other")


def test_start_brings_it_back_and_says_which_process_it_is(two: Server) -> None:
    stop(two)
    answer = start(two)
    assert answer == (answer.value, [f'NOTICE: the worker of database "postgres" has started, as process {answer.value}'])
    assert list(workers(two, "postgres")) == [answer.value]
    assert wait_for(two, "leader").pid == answer.value
    again = f"NOTICE: the worker of this database is running already, as process {answer.value}"
    assert start(two) == (answer.value, [again])
    until_swept(two, "postgres")
    until_served(two, ["other", "postgres"])


def test_a_stopped_worker_stays_stopped_whatever_happens_to_the_launcher(two: Server) -> None:
    stop(two)
    before = two.launcher_pid()
    two.execute(f"SELECT pg_terminate_backend({before})")
    wait_until(two.launcher_pid, lambda pid: pid not in (None, before), "another launcher")
    two.set(log_checkpoints=True)
    two.set(**{"pg_reaper.databases": "postgres, other, new"})
    # Those that came after it are served, and this one was passed over.
    make_database(two, "new")
    until_leading(two, "new")
    (pid,) = workers(two, "other")
    two.execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: list(workers(two, "other")), lambda now: now not in ([], [pid]), "another worker")
    assert served(two) == ["new", "other"]
    assert lease(two).leader == ""
    start(two)
    until_swept(two, "postgres")


def test_a_restart_forgets_that_it_was_stopped(two: Server) -> None:
    stop(two)
    two.restart()
    until_leading(two, "other", "postgres")


def test_stop_in_the_middle_of_a_batch_rolls_it_back(two: Server) -> None:
    gate = Gate(two, "gate")
    overdue(two, "in the batch", "gate")
    pid = gate.wait_for_arrival()
    assert stop(two).value == 1
    assert pid not in workers(two)
    assert lease(two).leader == ""
    assert two.value("SELECT count(*) FROM pg_barrier_state") == 2
    gate.open()
    start(two)
    wait_until_reaped(two, "in the batch", "gate")


def test_a_rolled_back_stop_has_stopped_all_the_same(two: Server) -> None:
    with two.connect(autocommit=False) as session:
        session.execute("SELECT pg_reaper_stop()")
        session.rollback()
    assert served(two) == ["other"]


def test_two_who_start_at_once_start_one(two: Server) -> None:
    stop(two)
    first, second = two.connect(), two.connect()
    for session in (first, second):
        session.pgconn.send_query(b"SELECT pg_reaper_start()")
    results = [session.pgconn.get_result() for session in (first, second)]
    pids = {result.get_value(0, 0) for result in results if result is not None}
    assert len(pids) == 1
    assert len(workers(two, "postgres")) == 1


def test_a_worker_that_does_not_stop_is_an_error_and_none_starts(two: Server) -> None:
    (pid,) = workers(two, "postgres")
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(psycopg.errors.CannotConnectNow, match=f"process {pid}"):
        stop(two)
    os.kill(pid, signal.SIGCONT)
    until_served(two, ["other"], AT_ONCE)
    assert lease(two).leader == ""


@pytest.mark.parametrize("why", ["left out", "template"])
def test_start_where_no_worker_is_allowed_is_an_error_that_says_why(two: Server, why: str) -> None:
    if why == "left out":
        two.set(**{"pg_reaper.databases": "postgres"})
    else:
        two.execute("ALTER DATABASE other IS_TEMPLATE true")
    until_served(two, ["postgres"])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        start(two, dbname="other")
    assert 'does not serve database "other"' in str(refused.value)
    assert "pg_reaper.databases" in (refused.value.diag.message_hint or "")
    assert served(two) == ["postgres"]


def test_a_worker_that_does_not_come_is_an_error_that_points_to_the_log(make_server: Callable[..., Server]) -> None:
    server = make_server({"max_worker_processes": "1", "max_logical_replication_workers": "0"})
    with pytest.raises(psycopg.errors.CannotConnectNow) as refused:
        start(server)
    assert 'the worker of database "postgres" did not start' in str(refused.value)
    assert "log" in (refused.value.diag.message_hint or "")


def test_only_those_who_were_granted_it_may_start_and_stop(two: Server) -> None:
    two.execute("CREATE ROLE anybody LOGIN", "CREATE ROLE watcher LOGIN IN ROLE pg_monitor", "CREATE ROLE boss LOGIN")
    for user in ["anybody", "watcher"]:
        for function in ["pg_reaper_start", "pg_reaper_stop", "pg_reaper_announce"]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=function):
                ask(two, function, user=user)
    assert served(two) == ["other", "postgres"]
    # No other right is needed: neither to see all sessions nor to signal them.
    two.execute("GRANT EXECUTE ON FUNCTION pg_reaper_start, pg_reaper_stop TO boss")
    assert stop(two, user="boss").value == 1
    assert served(two) == ["other"]
    assert start(two, user="boss").value in workers(two, "postgres")


def test_who_owns_the_extension_does_not_matter(server: Server) -> None:
    server.execute("CREATE ROLE installer LOGIN SUPERUSER", "CREATE DATABASE other")
    server.execute("CREATE EXTENSION pg_reaper", dbname="other", user="installer")
    until_leading(server, "other")
    server.execute("ALTER ROLE installer NOSUPERUSER")
    assert stop(server, dbname="other").value == 1
    assert served(server) == ["postgres"]
    assert start(server, dbname="other").value in workers(server, "other")
