"""Policies are carried: by pg_dump into another database, and from 0.1.0 to this version."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import overdue, status, wait_for, wait_for_cycles, wait_until_reaped
from scenery import log
from scenery.barriers import BY_HAND, adopted, arm, until_empty
from scenery.policies import add, alter, rows, suspended, until_rows, watched, write

POLICIES = (
    "SELECT id, relation::text, kind, builtin, name, expires_column::text, ttl, filter, time_zone, batch_size, rate_limit,"
    " sweep_interval, stuck_timeout, enabled FROM pg_reaper_policy ORDER BY id"
)


SWAP = (
    "ALTER TABLE jobs RENAME was TO aside", "ALTER TABLE jobs RENAME state TO was", "ALTER TABLE jobs RENAME aside TO state",
)  # fmt: skip
WIDE = "id text, due timestamptz, was text, state text"


def program(name: str, *args: str, **kwargs: str) -> str:
    """Runs one of PostgreSQL's client programs."""
    done = subprocess.run([str(installation.bindir() / name), *args], capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def carry(server: Server) -> None:
    """Dumps ``postgres`` into a fresh database called ``copy``."""
    dump = program("pg_dump", server.dsn())
    server.execute("CREATE DATABASE copy TEMPLATE template0")
    program("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", server.dsn("copy"), input=dump)


def test_a_dump_carries_every_setting_of_a_policy(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(
        "CREATE SCHEMA app", "CREATE TYPE app.mood AS ENUM ('sad', 'glad')",
        "CREATE FUNCTION app.is_done(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done'",
    )  # fmt: skip
    watched(
        server, "app.jobs", "id text, due timestamp, state text, mood app.mood DEFAULT 'sad'",
        ttl="1 mon 2 days 03:04:05", filter="app.is_done(state) AND mood = 'sad'", name="It's a \"name\"", batch_size=7,
        rate_limit=8, sweep_interval="9 min", time_zone="Europe/Berlin",
    )  # fmt: skip
    add(server, "app.jobs", time_zone="UTC", enabled=False)
    adopted(server, "app.barriers")
    barriers = server.value("SELECT id FROM pg_reaper_policy WHERE relation = 'app.barriers'::regclass")
    alter(server, barriers, stuck_timeout="1 h")
    dropped = watched(server, "app.dropped")
    server.query("SELECT pg_reaper_drop_policy(%s)", [dropped])
    server.execute("INSERT INTO app.jobs (id, due, state) VALUES ('dead', '2020-01-01', 'done'), ('alive', '2020-01-01', '')")
    carry(server)
    assert server.query(POLICIES, dbname="copy") == server.query(POLICIES)
    assert server.query("SELECT suspended FROM pg_reaper_policies WHERE suspended IS NOT NULL", dbname="copy") == []
    assert server.value("SELECT pg_reaper_sweep()", dbname="copy") == 1
    assert rows(server, "app.jobs") == ["alive", "dead"]
    # The next policy has an id of its own.
    server.execute("CREATE TABLE new (due timestamptz)", dbname="copy")
    assert server.value("SELECT pg_reaper_add_policy('new', 'due')", dbname="copy") == dropped + 1


def test_a_policy_that_was_carried_is_held_to_what_its_words_stand_for_there(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "50ms"})
    # Its columns have other numbers when it is made anew.
    policy = watched(server, "jobs", "id text, gone text, due timestamptz, was text, state text", filter="state = 'done'")
    server.execute("ALTER TABLE jobs DROP gone")
    carry(server)
    meaning = "SELECT meaning FROM pg_reaper_policy WHERE id = %s"
    given = server.value(meaning, [policy])
    there = wait_until(
        lambda: server.value(meaning, [policy], dbname="copy"), lambda there: there != given, "what it means there"
    )
    assert there.split()[1] != given.split()[1]
    dead = "INSERT INTO jobs (id, due, state, was) VALUES ('dead', now(), 'done', 'open')"
    server.execute(dead, dbname="copy")
    left = lambda: server.query("SELECT id FROM jobs", dbname="copy")  # noqa: E731
    wait_until(left, lambda rows: not rows, "the row to go")
    server.execute("BEGIN", *SWAP, dead, "COMMIT", dbname="copy")
    wait_until(lambda: log.failures(server.log(), "public.jobs"), bool, "the report")
    assert left() == [("dead",)]


def test_a_sweep_by_hand_holds_it_to_that_as_well(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    policy = watched(server, "jobs", WIDE, filter="state = 'done'")
    carry(server)
    by_hand = "SELECT pg_reaper_sweep(policy => %s)"
    assert server.value(by_hand, [policy], dbname="copy") == 0
    server.execute(*SWAP, "INSERT INTO jobs (id, due, state) VALUES ('kept', now(), 'done')", dbname="copy")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="means something else"):
        server.value(by_hand, [policy], dbname="copy")


def test_a_policy_that_is_not_what_it_was_given_for_is_not_trusted_elsewhere(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "50ms"})
    policy = watched(server, "jobs", WIDE, filter="state = 'done'")
    server.execute("BEGIN", *SWAP, "INSERT INTO jobs (id, due, state) VALUES ('kept', now(), 'done')", "COMMIT")
    meaning = "SELECT meaning FROM pg_reaper_policy WHERE id = %s"
    wait_until(lambda: server.value(meaning, [policy]), lambda kept: kept.endswith("filter-lost"), "that to be kept")
    carry(server)
    there = "SELECT suspended FROM pg_reaper_policies WHERE policy = %s"
    assert "means something else" in server.value(there, [policy], dbname="copy")
    wait_until(lambda: status(server, "copy").errors, bool, "the worker there to say so")
    left = lambda: server.query("SELECT id FROM jobs", dbname="copy")  # noqa: E731
    assert left() == [("kept",)]
    server.query("SELECT pg_reaper_alter_policy(%s, filter => %s)", [policy, "state = 'done'"], dbname="copy")
    wait_until(left, lambda rows: not rows, "the row to go")


def test_a_policy_whose_table_was_dropped_is_not_dumped(make_server: Callable[..., Server]) -> None:
    # What has the number of that table in the new database is not what was watched.
    server = make_server({"pg_reaper.enabled": "off"})
    watched(server, "jobs")
    watched(server, "gone")
    server.execute("DROP TABLE gone")
    assert server.value("SELECT count(*) FROM pg_reaper_policy WHERE NOT builtin") == 2
    carry(server)
    assert server.query("SELECT relation::text FROM pg_reaper_policy WHERE NOT builtin", dbname="copy") == [("jobs",)]


@pytest.fixture
def older(make_server: Callable[..., Server]) -> Server:
    """A server of the new library in which the extension was created by the old one, and lived in."""
    server = make_server(extension=False)
    server.execute(
        "CREATE ROLE sweeper LOGIN", "CREATE ROLE granter", "CREATE ROLE watcher LOGIN", "SET client_min_messages = error",
        "CREATE EXTENSION pg_reaper VERSION '0.1.0'",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO sweeper",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO granter WITH GRANT OPTION",
        "GRANT EXECUTE ON FUNCTION pg_reaper_status TO watcher",
    )  # fmt: skip
    # As after an upgrade of the package.
    server.restart()
    return server


def test_the_old_sql_goes_on_working_with_the_new_library(older: Server) -> None:
    wait_for(older, "leader")
    adopted(older, "public.jobs")
    arm(older, "dead", table="public.jobs")
    overdue(older, "due")
    until_empty(older, "public.jobs")
    wait_until_reaped(older, "due")
    older.set(**{"pg_reaper.enabled": "off"})
    wait_for(older, "disabled")
    arm(older, "by hand", table="public.jobs")
    assert older.value("SELECT pg_reaper_sweep('jobs')") == 1
    assert older.value("SELECT pg_reaper_sweep(max_rows => 5)") == 0
    assert older.value("SELECT pg_reaper_sweep()", user="sweeper") == 0
    older.execute("SELECT pg_reaper_disown('jobs')", "SELECT pg_reaper_adopt('jobs')")
    assert "failed" not in older.log()


SHAPE = {
    "columns": "SELECT attname::text, atttypid::regtype::text, attnotnull, attidentity::text, pg_get_expr(adbin, adrelid)"
    " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE attrelid IN ('pg_reaper_policy'::regclass, 'pg_reaper_lease'::regclass, 'pg_barrier_state'::regclass,"
    " 'pg_reaper_policies'::regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid::regclass::text, attnum",
    "constraints": "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE conrelid IN ('pg_reaper_policy'::regclass, 'pg_reaper_lease'::regclass, 'pg_barrier_state'::regclass) ORDER BY 1",
    "indexes": "SELECT pg_get_indexdef(indexrelid) FROM pg_index"
    " WHERE indrelid IN ('pg_reaper_policy'::regclass, 'pg_reaper_lease'::regclass, 'pg_barrier_state'::regclass) ORDER BY 1",
    "view": "SELECT pg_get_viewdef('pg_reaper_policies'::regclass)",
    "functions": "SELECT pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc') FROM pg_proc p"
    " WHERE proname ~ '^pg_reaper' ORDER BY p.oid::regprocedure::text",
    "comments": "SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_class WHERE relname ~ '^pg_(reaper|barrier)' ORDER BY 1",
    "grants": "SELECT relname::text, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) a) FROM pg_class"
    " WHERE relname ~ '^pg_(reaper|barrier)' ORDER BY 1",
    "rights": "SELECT proname::text, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(proacl) a) FROM pg_proc"
    " WHERE proname ~ '^pg_reaper' ORDER BY 1",
    "triggers": "SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger"
    " WHERE NOT tgisinternal ORDER BY 1, 2",
    "dumped": "SELECT array_agg(c::regclass::text || coalesce(w, '') ORDER BY c::regclass::text)"
    " FROM pg_extension, unnest(extconfig, extcondition) AS u (c, w) WHERE extname = 'pg_reaper'",
    "members": "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend"
    " WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' ORDER BY 1",
}


def test_an_extension_that_was_upgraded_equals_a_fresh_one(older: Server) -> None:
    older.execute("ALTER EXTENSION pg_reaper UPDATE", "CREATE DATABASE new")
    older.execute(
        "CREATE EXTENSION pg_reaper",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO sweeper",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO granter WITH GRANT OPTION",
        "GRANT EXECUTE ON FUNCTION pg_reaper_status TO watcher",
        dbname="new",
    )
    for what, statement in SHAPE.items():
        assert older.query(statement) == older.query(statement, dbname="new"), what
    wait_for(older, "leader")


def test_an_upgrade_keeps_policies_grants_and_what_the_worker_does(older: Server) -> None:
    wait_for(older, "leader")
    adopted(older, "public.jobs")
    older.execute("ALTER EXTENSION pg_reaper UPDATE")
    arm(older, "dead", table="public.jobs")
    until_empty(older, "public.jobs")
    assert older.query("SELECT relation::text, kind, enabled FROM pg_reaper_policies") == [
        ("pg_barrier_state", "barrier", True), ("jobs", "barrier", True),
    ]  # fmt: skip
    assert older.value("SELECT pg_reaper_sweep()", user="sweeper") == 0
    assert older.value("SELECT state FROM pg_reaper_status()", user="watcher") == "leader"
    policy = watched(older, "others", ttl="1 h", filter="state = 'open'")
    write(older, "others", "dead", due="-2 h")
    until_rows(older, "others")
    assert suspended(older, policy) is None
    wait_for_cycles(older)
    assert "failed" not in older.log()


def test_the_right_to_sweep_that_everybody_had_is_carried_too(older: Server) -> None:
    older.execute("GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO PUBLIC", "CREATE ROLE anybody LOGIN")
    older.execute("ALTER EXTENSION pg_reaper UPDATE")
    assert older.value("SELECT pg_reaper_sweep()", user="anybody") == 0


def test_an_upgrade_goes_through_in_a_schema_of_any_name(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "postgres"}, extension=False)
    server.execute(
        'CREATE SCHEMA "100 %s"', "CREATE ROLE sweeper LOGIN", 'GRANT USAGE ON SCHEMA "100 %s" TO sweeper',
        "SET client_min_messages = error", """CREATE EXTENSION pg_reaper SCHEMA "100 %s" VERSION '0.1.0'""",
        'GRANT EXECUTE ON FUNCTION "100 %s".pg_reaper_sweep TO sweeper', "ALTER EXTENSION pg_reaper UPDATE",
    )  # fmt: skip
    assert server.query('SELECT "100 %s".pg_reaper_sweep()', user="sweeper") == [(0,)]
