"""Adopting a table of the application: it is watched, left as it is, and outlives the extension."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from scenery.barriers import BY_HAND, COLUMNS, adopted, arm, count, ids, until_empty, until_left


def test_an_adopted_table_is_left_as_it_is_and_outlives_the_extension(server: Server) -> None:
    server.execute(f"CREATE TABLE jobs ({COLUMNS})", "CREATE INDEX ON jobs (expires_at)")
    shape = (
        "SELECT c.relacl::text, c.relowner, c.relhastriggers, c.relrowsecurity, c.reloptions,"
        " (SELECT count(*) FROM pg_index WHERE indrelid = c.oid), (SELECT count(*) FROM pg_depend WHERE objid = c.oid),"
        " (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.oid)"
        " FROM pg_class c WHERE c.oid = 'jobs'::regclass"
    )
    before = server.query(shape)
    server.query("SELECT pg_reaper_adopt('jobs')")
    arm(server, "dead", table="jobs")
    arm(server, "alive", due="1 h", table="jobs")
    until_left(server, ["alive"], "jobs")
    server.execute("DROP EXTENSION pg_reaper")
    assert ids(server, "jobs") == ["alive"]
    assert server.query(shape) == before


def test_the_worker_takes_up_a_table_within_a_cycle_and_lets_go_of_it(server: Server) -> None:
    server.execute(f"CREATE TABLE jobs ({COLUMNS})")
    arm(server, "dead", table="jobs")
    server.query("SELECT pg_reaper_adopt('jobs')")
    until_empty(server, "jobs")
    server.query("SELECT pg_reaper_disown('jobs')")
    arm(server, "left", table="jobs")
    # What the worker reaps next it reaps without the table.
    arm(server, "other")
    until_empty(server)
    assert ids(server, "jobs") == ["left"]


def test_an_adoption_that_is_rolled_back_never_was(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(f"CREATE TABLE jobs ({COLUMNS})")
    session = server.connect(autocommit=False)
    session.execute("SELECT pg_reaper_adopt('jobs')")
    session.rollback()
    assert server.value("SELECT count(*) FROM pg_reaper_policy") == 1


def test_two_sessions_that_adopt_one_table_make_one_policy(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(f"CREATE TABLE jobs ({COLUMNS})")
    one = server.connect(autocommit=False)
    one.execute("SELECT pg_reaper_adopt('jobs')")
    # The second waits for the first, and is then told that it came too late.
    two = psycopg.connect(**server.address(), autocommit=True)
    outcome: list[BaseException | None] = []

    def adopt() -> None:
        try:
            two.execute("SELECT pg_reaper_adopt('jobs')")
            outcome.append(None)
        except psycopg.Error as error:
            outcome.append(error)

    thread = threading.Thread(target=adopt)
    thread.start()
    wait_until(
        lambda: server.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), bool, "the wait"
    )
    one.commit()
    thread.join(30)
    two.close()
    (error,) = outcome
    assert isinstance(error, psycopg.errors.DuplicateObject), error
    assert server.value("SELECT count(*) FROM pg_reaper_policy") == 2


def test_the_owner_adopts_and_disowns_and_nobody_else(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(
        "CREATE ROLE alice LOGIN",
        "CREATE ROLE bob LOGIN",
        "GRANT EXECUTE ON FUNCTION pg_reaper_adopt, pg_reaper_disown, pg_reaper_sweep TO alice, bob",
        f"CREATE TABLE jobs ({COLUMNS})",
        "ALTER TABLE jobs OWNER TO alice",
        # To read and write it is not to own it.
        "GRANT ALL ON jobs TO bob",
    )
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of table public.jobs")
    with refused:
        server.query("SELECT pg_reaper_adopt('jobs')", user="bob")
    server.query("SELECT pg_reaper_adopt('jobs')", user="alice")
    with refused:
        server.query("SELECT pg_reaper_disown('jobs')", user="bob")
    with refused:
        server.query("SELECT pg_reaper_sweep('jobs')", user="bob")
    # Alice needs no right on the extension's own tables for it.
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        server.query("SELECT * FROM pg_reaper_policy", user="alice")
    server.query("SELECT pg_reaper_disown('jobs')", user="alice")
    assert server.value("SELECT count(*) FROM pg_reaper_policy") == 1


def test_an_extension_in_another_schema_works_from_any_path(make_server: Callable[..., Server]) -> None:
    server = make_server(extension=False)
    server.execute(
        "CREATE SCHEMA reaper",
        f"CREATE TABLE pg_barrier_state ({COLUMNS})",
        "CREATE EXTENSION pg_reaper SCHEMA reaper",
        "SELECT reaper.pg_reaper_adopt('public.pg_barrier_state')",
        "INSERT INTO pg_barrier_state VALUES ('theirs', '', 1, now())",
        "INSERT INTO reaper.pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('ours', 1, '-infinity', now())",
    )
    until_empty(server, "public.pg_barrier_state")
    until_empty(server, "reaper.pg_barrier_state")


def test_without_the_preload_the_extension_says_so_and_sweeps_by_hand(make_server: Callable[..., Server]) -> None:
    server = make_server(preload=False, extension=False)
    told: list[tuple[str | None, str, str]] = []
    with server.connect() as session:
        session.add_notice_handler(
            lambda n: told.append((n.severity, n.message_primary or "", n.message_hint or ""))
        )
        session.execute("CREATE EXTENSION pg_reaper")
        ((severity, message, hint),) = told
        assert (severity, message) == (
            "WARNING",
            "pg_reaper is not in shared_preload_libraries, so no worker reaps anything",
        )
        assert "shared_preload_libraries = 'pg_reaper'" in hint
        assert "SELECT public.pg_reaper_start()" in hint
        assert "SELECT public.pg_reaper_sweep()" in hint
        session.execute("CREATE TABLE jobs (execution_id text, expires_at timestamptz)")
        session.execute("SELECT pg_reaper_adopt('jobs')")
        session.execute("INSERT INTO jobs VALUES ('dead', now())")
        assert session.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)
        assert count(server, "jobs") == 0


@pytest.mark.parametrize("preload", ["pg_reaper", "auto_explain, pg_reaper", '"pg_reaper"', "$libdir/pg_reaper"])
def test_every_way_to_write_the_preload_is_understood(make_server: Callable[..., Server], preload: str) -> None:
    server = make_server({"shared_preload_libraries": preload}, extension=False)
    told: list[str] = []
    with server.connect() as session:
        session.add_notice_handler(lambda n: told.append(n.message_primary or ""))
        session.execute("CREATE EXTENSION pg_reaper")
    assert told == []
    adopted(server, "public.jobs")
