"""What the worker does when it starts, and when extension or database are not there.

Which databases get one, and when, is in test_launcher_*.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, barriers, lease, overdue, status, status_if_any, wait_for, wait_until_reaped, waits_for_lock,
)  # fmt: skip
from scenery import log

UNKNOWN = "pg_reaper.databases names what is no database to serve: nowhere"


def test_the_worker_starts_leads_and_says_so(make_server: Callable[..., Server]) -> None:
    server = make_server()
    row = wait_for(server, "leader")
    assert server.worker_pids() == [row.pid]
    assert lease(server)[:2] == (row.leader, row.term)
    # A person can tell from the id where to look.
    assert f"/postgres/{row.pid}@" in row.leader
    assert f'pg_reaper acquired the lease: leader "{row.leader}", term 1' in server.log()


def test_each_start_has_an_id_of_its_own(make_server: Callable[..., Server]) -> None:
    server = make_server()
    ids = set()
    for _ in range(3):
        ids.add(wait_for(server, "leader").leader)
        server.restart()
    assert len(ids) == 3


def wait_for_no_worker(server: Server, **where: Any) -> None:
    """Waits until ``postgres`` has no worker, and nothing is told of one."""
    wait_until(lambda: status_if_any(server, **where), lambda row: row is None, "nothing to be told of a worker")
    # It has told its last before its process ends.
    in_postgres = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_reaper worker' AND datname = 'postgres'"
    wait_until(lambda: server.query(in_postgres), lambda rows: not rows, "the worker to leave")


def test_the_extension_may_come_go_and_come_again_elsewhere(make_server: Callable[..., Server]) -> None:
    server = make_server(extension=False)
    # Asked through a database of its own, since there the function must be.
    server.execute("CREATE DATABASE watch")
    server.execute("CREATE EXTENSION pg_reaper", dbname="watch")
    watch = {"dbname": "watch"}
    wait_for(server, "leader", database="watch", **watch)
    wait_for_no_worker(server, **watch)

    server.execute("CREATE EXTENSION pg_reaper")
    first = wait_for(server, "leader", **watch)
    overdue(server, "first")
    wait_until_reaped(server, "first")

    server.execute("DROP EXTENSION pg_reaper")
    wait_for_no_worker(server, **watch)

    server.execute("CREATE SCHEMA else_where", "CREATE EXTENSION pg_reaper SCHEMA else_where")
    second = wait_for(server, "leader", **watch)
    assert second.pid != first.pid
    # What was counted before belonged to another extension.
    assert (second.rows_reaped, second.errors) == (0, 0)
    overdue(server, "second", table="else_where.pg_barrier_state")
    wait_until_reaped(server, "second", table="else_where.pg_barrier_state")

    # In one transaction: no cycle finds it missing, but it is another one.
    server.execute("DROP EXTENSION pg_reaper; CREATE EXTENSION pg_reaper")
    overdue(server, "third")
    wait_until_reaped(server, "third")
    third = wait_for(server, "leader", **watch)
    assert (third.pid, third.errors) == (second.pid, 0), "the worker neither fails nor starts anew"


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_extension_that_goes_in_the_middle_of_a_cycle_is_no_failure(
    make_server: Callable[..., Server], comes_back: bool
) -> None:
    server = make_server()
    pid = wait_for(server, "leader").pid
    with server.connect(autocommit=False) as session:
        session.execute("LOCK TABLE pg_reaper_policy")
        wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the policies")
        session.execute("DROP EXTENSION pg_reaper")
        if comes_back:
            session.execute("CREATE EXTENSION pg_reaper")
        session.commit()
    if comes_back:
        overdue(server, "due")
        wait_until_reaped(server, "due")
        assert wait_for(server, "leader").errors == 0
    else:
        wait_until(server.worker_pids, lambda pids: pids == [], "the worker to leave")
    assert "failed" not in server.log()


def test_an_extension_that_is_back_before_the_worker_has_left_gets_its_worker(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.interval": "10ms"})
    for _ in range(20):
        server.execute("DROP EXTENSION pg_reaper", "CREATE EXTENSION pg_reaper")
        overdue(server, "due")
        wait_until_reaped(server, "due", timeout=AT_ONCE)


def test_a_dropped_schema_takes_the_extension_along_and_the_worker_leaves(make_server: Callable[..., Server]) -> None:
    server = make_server(extension=False)
    server.execute("CREATE SCHEMA reaper", "CREATE EXTENSION pg_reaper SCHEMA reaper")
    wait_until(
        lambda: server.query("SELECT state FROM reaper.pg_reaper_status()"),
        lambda rows: rows == [("leader",)],
        "the worker to lead",
    )
    server.execute("DROP SCHEMA reaper CASCADE")
    wait_until(server.worker_pids, lambda pids: pids == [], "the worker to leave")
    server.execute("CREATE EXTENSION pg_reaper")
    assert wait_for(server, "leader").errors == 0


def test_the_worker_serves_the_database_it_is_told_to(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "postgres"})
    server.execute('CREATE DATABASE "other one"')
    server.execute("CREATE EXTENSION pg_reaper", dbname="other one")
    before = wait_for(server, "leader")
    assert server.worker_pids() == [before.pid]
    server.set(**{"pg_reaper.databases": "other one"})
    after = wait_for(server, "leader", database="other one")
    assert after.pid != before.pid
    wait_until(server.worker_pids, lambda pids: pids == [after.pid], "the first worker to leave")
    assert lease(server).leader == "", "the lease of the first database was not released"
    overdue(server, "here")
    server.query(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('there', 1, now() - interval '1 h', now() - interval '1 s')",
        dbname="other one",
    )
    count = "SELECT count(*) FROM pg_barrier_state"
    wait_until(lambda: server.value(count, dbname="other one"), lambda n: n == 0, "the other database to be swept")
    assert barriers(server) == {"here"}

    server.set(**{"pg_reaper.databases": None})
    wait_until_reaped(server, "here")
    back = wait_for(server, "leader").pid
    wait_until(server.worker_pids, lambda pids: pids == [back], "the other worker to leave")


def test_a_missing_database_is_told_of_once_and_heals_when_it_is_made(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "nowhere"}, extension=False)
    (warning,) = wait_until(lambda: log.warnings(server.log(), UNKNOWN), bool, "the warning")
    assert "create the database" in warning.hint
    server.execute("CREATE DATABASE nowhere")
    server.execute("CREATE EXTENSION pg_reaper", dbname="nowhere")
    wait_for(server, "leader", database="nowhere", dbname="nowhere")
    assert len(log.warnings(server.log())) == 1


def test_a_missing_database_heals_at_once_when_the_setting_is_put_right(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    server.set(**{"pg_reaper.databases": "nowhere"})
    wait_until(lambda: log.warnings(server.log(), UNKNOWN), bool, "the warning")
    wait_until(server.worker_pids, lambda pids: pids == [], "the worker to leave")
    down = status(server)
    assert (down.state, down.pid, down.term) == ("down", None, None)
    assert lease(server).leader == ""
    overdue(server, "due")
    server.set(**{"pg_reaper.databases": None})
    wait_until_reaped(server, "due")
    assert wait_for(server, "leader").started_at > before.started_at


def test_the_server_stops_promptly_while_there_is_nothing_to_serve(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "nowhere"}, extension=False)
    wait_until(lambda: log.warnings(server.log(), UNKNOWN), bool, "the warning")
    assert server.worker_pids() == []
    assert server.launcher_pid() is not None
    server.stop("fast", timeout=AT_ONCE)
