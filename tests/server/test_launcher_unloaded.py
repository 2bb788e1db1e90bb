"""A worker that was started by hand, on a server without the preload: until the next restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import AT_ONCE, lease, statuses
from scenery.fleet import TALKATIVE, make_database, served, until_served, until_swept, workers

FORGOTTEN = 'unregistering background worker "pg_reaper worker"'


@pytest.fixture
def unloaded(make_server: Callable[..., Server]) -> Server:
    return make_server(TALKATIVE, preload=False)


def call(server: Server, function: str, **where: Any) -> tuple[Any, list[str]]:
    """What a function returned, and its notices."""
    notices: list[str] = []
    with psycopg.connect(**server.address(**where), autocommit=True) as session:
        session.add_notice_handler(lambda n: notices.append(f"{n.severity}: {n.message_primary}"))
        row = session.execute(f"SELECT {function}()").fetchone()
    assert row is not None
    return row[0], notices


def start(server: Server, **where: Any) -> int:
    return call(server, "pg_reaper_start", **where)[0]


def until_forgotten(server: Server, since: int) -> None:
    """Waits until the postmaster says that it will not start the worker again, and none is there."""
    wait_until(lambda: FORGOTTEN in server.log_since(since), bool, "the worker to be forgotten", AT_ONCE)
    assert served(server) == []


def test_start_says_until_when_and_the_worker_sweeps(unloaded: Server) -> None:
    pid, notices = call(unloaded, "pg_reaper_start")
    assert notices == [
        f'NOTICE: the worker of database "postgres" has started, as process {pid} until the server restarts'
    ]
    assert workers(unloaded) == {pid: "postgres"}
    until_swept(unloaded, "postgres")
    assert call(unloaded, "pg_reaper_start") == (
        pid, [f"NOTICE: the worker of this database is running already, as process {pid}"]
    )  # fmt: skip
    assert workers(unloaded) == {pid: "postgres"}


def test_two_who_start_one_at_the_same_time_start_one(unloaded: Server) -> None:
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            started = list(pool.map(lambda _: start(unloaded), range(4)))
        assert len(set(started)) == 1, "all are told of the same one"
        assert workers(unloaded) == {started[0]: "postgres"}
        assert call(unloaded, "pg_reaper_stop")[0] == 1


def test_each_database_can_have_one(unloaded: Server) -> None:
    make_database(unloaded, "other")
    pids = {start(unloaded): "postgres", start(unloaded, dbname="other"): "other"}
    assert workers(unloaded) == pids
    until_swept(unloaded, "postgres", "other")
    call(unloaded, "pg_reaper_stop")
    assert served(unloaded) == ["other"]
    until_swept(unloaded, "other")


def test_the_status_shows_it_where_there_is_shared_memory(unloaded: Server) -> None:
    pid = start(unloaded)
    until_swept(unloaded, "postgres")
    rows = [(row.database, row.pid, row.state) for row in statuses(unloaded)]
    assert rows == ([("postgres", pid, "leader")] if installation.major_version() >= 17 else [])
    call(unloaded, "pg_reaper_stop")
    assert [row.pid for row in statuses(unloaded)] in ([None], [])


def test_stop_ends_it_for_good_with_its_lease_released(unloaded: Server) -> None:
    start(unloaded)
    until_swept(unloaded, "postgres")
    assert lease(unloaded).leader != ""
    mark = unloaded.log_mark()
    assert call(unloaded, "pg_reaper_stop") == (1, ['NOTICE: the worker of database "postgres" has stopped'])
    assert lease(unloaded).leader == ""
    until_forgotten(unloaded, mark)
    assert call(unloaded, "pg_reaper_stop") == (
        0, ['NOTICE: no worker of database "postgres" was running; none starts']
    )  # fmt: skip
    start(unloaded)
    until_swept(unloaded, "postgres")


def test_stop_in_the_middle_of_a_batch_ends_it_for_good(unloaded: Server) -> None:
    unloaded.execute(
        "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
        "CREATE TRIGGER stay BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION stay()",
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('stays', 1, now() - interval '1 h', now() - interval '1 s')",
    )
    # One of its own, or the second timer ends it first.
    unloaded.set(**{"pg_reaper.lease_duration": "60s"})
    pid = start(unloaded)
    inside = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: unloaded.value(inside, [pid]), lambda event: event == "PgSleep", "the trigger")
    mark = unloaded.log_mark()
    assert call(unloaded, "pg_reaper_stop")[0] == 1
    until_forgotten(unloaded, mark)


def test_terminated_it_comes_back_each_time(unloaded: Server) -> None:
    pid = start(unloaded)
    until_swept(unloaded, "postgres")
    for _ in range(3):
        unloaded.execute(f"SELECT pg_terminate_backend({pid})")
        (pid,) = wait_until(
            lambda: list(workers(unloaded)), lambda now, pid=pid: now not in ([], [pid]), "another worker"
        )
        until_swept(unloaded, "postgres")
    assert lease(unloaded).term == 4


def test_terminated_while_it_starts_it_comes_back_all_the_same(unloaded: Server) -> None:
    make_database(unloaded, "other")
    pid = start(unloaded, dbname="other")
    # Whoever renames a database holds it, and nobody gets in meanwhile.
    owner = unloaded.connect(autocommit=False)
    owner.execute("ALTER DATABASE other RENAME TO another")
    # Before 18 it cannot be seen in pg_stat_activity yet.
    starting = "SELECT pid FROM pg_locks WHERE NOT granted AND classid = 'pg_database'::regclass"
    second = wait_until(lambda: unloaded.value(starting), lambda now: now not in (None, pid), "the next to wait")
    unloaded.execute(f"SELECT pg_terminate_backend({second})")
    wait_until(lambda: unloaded.value(starting), lambda now: now != second, "it to end")
    owner.rollback()
    until_served(unloaded, ["other"])
    until_swept(unloaded, "other")


def test_after_a_crash_it_is_back(make_server: Callable[..., Server]) -> None:
    server = make_server({"restart_after_crash": "on"}, preload=False)
    pid = start(server)
    until_swept(server, "postgres")
    for _ in range(2):
        os.kill(pid, signal.SIGKILL)

        def pids(old: int = pid) -> list[int]:
            try:
                return [now for now in workers(server) if now != old]
            except psycopg.OperationalError:
                return []

        (pid,) = wait_until(pids, bool, "the worker after the crash")
        until_swept(server, "postgres")


def test_after_a_restart_there_is_none(unloaded: Server) -> None:
    start(unloaded)
    unloaded.restart()
    assert served(unloaded) == []
    start(unloaded)
    until_swept(unloaded, "postgres")


@pytest.mark.parametrize("deed", ["DROP EXTENSION pg_reaper", "DROP DATABASE other"])
def test_it_is_forgotten_with_what_it_served(unloaded: Server, deed: str) -> None:
    make_database(unloaded, "other")
    start(unloaded, dbname="other")
    mark = unloaded.log_mark()
    with unloaded.connect("postgres" if "DATABASE" in deed else "other") as session:
        session.execute("SET statement_timeout = '4s'")
        session.execute(deed)
    until_forgotten(unloaded, mark)


@pytest.mark.parametrize("deed", ["ALTER DATABASE other RENAME TO renamed", "CREATE DATABASE copy TEMPLATE other"])
def test_it_makes_way_and_is_back(unloaded: Server, deed: str) -> None:
    make_database(unloaded, "other")
    pid = start(unloaded, dbname="other")
    with unloaded.connect() as session:
        session.execute("SET statement_timeout = '4s'")
        session.execute(deed)
    name = "renamed" if "RENAME" in deed else "other"
    wait_until(lambda: workers(unloaded, name), lambda now: len(now) == 1 and pid not in now, "another worker")
    until_swept(unloaded, name)
    # A copy has none of its own here: nobody started it.
    assert served(unloaded) == [name]


def test_without_a_free_slot_start_is_an_error_that_says_so(make_server: Callable[..., Server]) -> None:
    server = make_server({"max_worker_processes": "1", "max_logical_replication_workers": "0"}, preload=False)
    make_database(server, "other")
    start(server)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as refused:
        start(server, dbname="other")
    assert refused.value.sqlstate == "53400"
    assert "max_worker_processes" in (refused.value.diag.message_hint or "")
    call(server, "pg_reaper_stop")
    start(server, dbname="other")
    until_swept(server, "other")
