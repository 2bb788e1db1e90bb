"""What the worker does when it starts, and when extension or database are not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped,
)  # fmt: skip


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


def test_the_extension_may_come_go_and_come_again_elsewhere(make_server: Callable[..., Server]) -> None:
    server = make_server(extension=False)
    # Asked through a database of its own, since there the function must be.
    server.execute("CREATE DATABASE watch")
    server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper", dbname="watch")
    pid = wait_for(server, "no extension", dbname="watch").pid

    def state(expected: str) -> None:
        row = wait_for(server, expected, AT_ONCE, dbname="watch")
        assert (row.pid, row.errors) == (pid, 0), "the worker idles, and does not fail or start anew"

    server.execute("CREATE EXTENSION pg_reaper")
    state("leader")
    overdue(server, "first")
    wait_until_reaped(server, "first")

    server.execute("DROP EXTENSION pg_reaper")
    state("no extension")

    server.execute("CREATE SCHEMA else_where", "CREATE EXTENSION pg_reaper SCHEMA else_where")
    state("leader")
    overdue(server, "second", table="else_where.pg_barrier_state")
    wait_until_reaped(server, "second", table="else_where.pg_barrier_state")

    # In one transaction: no cycle finds it missing, but it is another one.
    server.execute("DROP EXTENSION pg_reaper; CREATE EXTENSION pg_reaper")
    overdue(server, "third")
    wait_until_reaped(server, "third")
    state("leader")


def test_a_dropped_schema_takes_the_extension_along_and_the_worker_idles(make_server: Callable[..., Server]) -> None:
    server = make_server(extension=False)
    server.execute("CREATE SCHEMA reaper", "CREATE EXTENSION pg_reaper SCHEMA reaper")
    wait_until(
        lambda: server.value("SELECT state FROM reaper.pg_reaper_status()"), "leader".__eq__, "the worker to lead"
    )
    (pid,) = server.worker_pids()
    server.execute("DROP SCHEMA reaper CASCADE", "CREATE EXTENSION pg_reaper")
    assert wait_for(server, "leader").pid == pid


def test_the_worker_serves_the_database_it_is_told_to(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.execute('CREATE DATABASE "other one"')
    server.execute("CREATE EXTENSION pg_reaper", dbname="other one")
    before = wait_for(server, "leader")
    server.set(**{"pg_reaper.databases": "other one"})
    after = wait_for(server, "leader", database="other one")
    assert after.pid != before.pid
    assert lease(server).leader == "", "the lease of the first database was not released"
    server.query(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('there', 1, now() - interval '1 h', now() - interval '1 s')",
        dbname="other one",
    )
    overdue(server, "here")
    count = "SELECT count(*) FROM pg_barrier_state"
    wait_until(lambda: server.value(count, dbname="other one"), lambda n: n == 0, "the other database to be swept")
    assert barriers(server) == {"here"}

    server.set(**{"pg_reaper.databases": None})
    wait_until_reaped(server, "here")
    assert len(server.worker_pids()) == 1


def starts_refused(server: Server) -> list[datetime]:
    """When the worker failed to start for want of its database."""
    lines = re.findall(r'^(\S+ \S+) UTC \[\d+\] FATAL:  database "nowhere" does not exist', server.log(), re.M)
    return [datetime.fromisoformat(line) for line in lines]


def test_a_missing_database_floods_no_log_and_heals_when_it_is_made(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "nowhere"})
    refused = wait_until(lambda: starts_refused(server), lambda times: len(times) >= 3, "three starts")
    # A start every second would fill the log: each wait is longer than the one before.
    assert refused[2] - refused[1] >= timedelta(seconds=2)
    assert refused[2] - refused[1] > refused[1] - refused[0]
    server.execute("CREATE DATABASE nowhere")
    server.execute("CREATE EXTENSION pg_reaper", dbname="nowhere")
    wait_for(server, "leader", database="nowhere")


def test_a_missing_database_heals_at_once_when_the_setting_is_put_right(make_server: Callable[..., Server]) -> None:
    server = make_server()
    wait_for(server, "leader")
    server.set(**{"pg_reaper.databases": "nowhere"})
    wait_until(lambda: starts_refused(server), lambda times: len(times) >= 2, "two starts")
    down = status(server)
    assert (down.state, down.pid, down.term) == ("down", None, None)
    overdue(server, "due")
    server.set(**{"pg_reaper.databases": None})
    wait_until_reaped(server, "due")
    wait_for_cycles(server)
    assert wait_for(server, "leader").started_at > down.started_at


def test_the_server_stops_promptly_while_the_worker_has_no_database(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "nowhere"})
    wait_until(lambda: starts_refused(server), lambda times: len(times) >= 2, "two starts")
    # The third waits, in a process of its own, before it tries to connect.
    wait_until(lambda: "pg_reaper" in processes(server), bool, "the third start")
    server.stop("fast", timeout=AT_ONCE)


def processes(server: Server) -> str:
    """What the server's processes call themselves."""
    titles = []
    for pid in server.children():
        try:
            with open(f"/proc/{pid}/cmdline") as title:
                titles.append(title.read())
        except OSError:
            pass  # it has ended in the meantime
    return "\n".join(titles)
