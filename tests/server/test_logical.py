"""Logical replication: what one server is told to reap, another is not told by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import lease, status, wait_for, wait_for_cycles
from scenery.policies import KEYED, add, rows, until_rows, watched, write
from scenery.quarantine import refuse, until_held

LOGICAL = {"wal_level": "logical"}
EVENTS = ["CREATE TABLE events (id text PRIMARY KEY, due timestamptz, state text)", "CREATE INDEX ON events (due)"]


@pytest.fixture
def pair(make_server: Callable[..., Server]) -> tuple[Server, Server]:
    """A server that publishes all that it has, and one that keeps all that it gets."""
    publisher, archive = make_server(LOGICAL, name="publisher"), make_server(LOGICAL, name="archive")
    for server in (publisher, archive):
        wait_for(server, "leader")
        server.execute(*EVENTS)
    publisher.execute("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, update')")
    archive.execute(f"CREATE SUBSCRIPTION everything CONNECTION '{publisher.dsn()}' PUBLICATION everything")
    ready = "SELECT count(*) FILTER (WHERE srsubstate <> 'r') FROM pg_subscription_rel"
    wait_until(lambda: archive.value(ready), (0).__eq__, "all tables to be copied")
    return publisher, archive


def until_there(archive: Server, *names: str) -> None:
    """Waits until rows have come over that were written after all that came before."""
    wait_until(lambda: set(names) <= set(rows(archive, "events")), description=f"{names} to come over")


def test_an_archive_is_not_told_to_reap_by_whom_it_archives(pair: tuple[Server, Server]) -> None:
    publisher, archive = pair
    write(publisher, "events", "old")
    until_there(archive, "old")
    add(publisher, "events")
    until_rows(publisher, "events")
    write(publisher, "events", "later", due="1 h")
    until_there(archive, "old", "later")
    assert archive.value("SELECT count(*) FROM pg_reaper_policy WHERE NOT builtin") == 0
    publisher.stop()
    wait_for_cycles(archive)
    assert rows(archive, "events") == ["later", "old"]


def test_each_has_its_own_lease_policies_and_quarantine(pair: tuple[Server, Server]) -> None:
    publisher, archive = pair
    mine, theirs = lease(archive), lease(publisher)
    # Of the same numbers.
    for server in pair:
        server.execute("CREATE TABLE own (id text PRIMARY KEY, due timestamptz, state text)", "CREATE INDEX ON own (due)")
        refuse(server, "own")
    assert add(publisher, "own") == add(archive, "own")
    for server in pair:
        write(server, "own", "bad", "good")
        until_rows(server, "own", "bad")
        until_held(server, "bad")
    write(publisher, "events", "last", due="1 h")
    until_there(archive, "last")
    assert (lease(archive).leader, lease(publisher).leader) == (mine.leader, theirs.leader)
    assert (status(archive).state, status(archive).errors) == ("leader", status(archive).errors)
    assert "duplicate key" not in archive.log()


def test_what_a_session_restores_as_a_replica_is_kept(server: Server) -> None:
    # As some do to have no foreign keys checked.
    policy = watched(server, "jobs", KEYED)
    (row,) = server.query("SELECT to_jsonb(p)::text FROM pg_reaper_policy p WHERE id = %s", [policy])
    with server.connect() as session:
        session.execute("SET session_replication_role = replica")
        session.execute("DELETE FROM pg_reaper_policy WHERE id = %s", [policy])
        assert session.execute("SELECT count(*) FROM pg_reaper_policy WHERE id = %s", [policy]).fetchone() == (0,)
        session.execute(
            "INSERT INTO pg_reaper_policy SELECT (jsonb_populate_record(NULL::pg_reaper_policy, %s::jsonb)).*", row
        )
    write(server, "jobs", "dead")
    until_rows(server, "jobs")
