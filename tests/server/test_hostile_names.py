"""Mallory puts names of her own in the way of those that a sweep means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from scenery import mallory
from scenery.barriers import BY_HAND, arm, count, ids, until_left
from scenery.mallory import SWEEPERS

# Each would be chosen before PostgreSQL's own if its schema came first in the path. All
# answer that every row is due, and note who asked.
TRAPS = [
    "CREATE FUNCTION {s}.trap(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO hers.diary VALUES ('operator', current_user, session_user); RETURN true; END $$",
    "CREATE OPERATOR {s}.< (FUNCTION = {s}.trap, LEFTARG = timestamptz, RIGHTARG = timestamptz)",
    "CREATE OPERATOR {s}.>= (FUNCTION = {s}.trap, LEFTARG = timestamptz, RIGHTARG = timestamptz)",
    "CREATE FUNCTION {s}.trap(tid, tid) RETURNS boolean LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO hers.diary VALUES ('operator', current_user, session_user); RETURN true; END $$",
    "CREATE OPERATOR {s}.= (FUNCTION = {s}.trap, LEFTARG = tid, RIGHTARG = tid)",
    "CREATE FUNCTION {s}.trap(oid, oid) RETURNS boolean LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO hers.diary VALUES ('operator', current_user, session_user); RETURN true; END $$",
    "CREATE OPERATOR {s}.= (FUNCTION = {s}.trap, LEFTARG = oid, RIGHTARG = oid)",
    "CREATE FUNCTION {s}.now() RETURNS timestamptz LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO hers.diary VALUES ('function', current_user, session_user);"
    " RETURN 'infinity'::timestamptz; END $$",
    "CREATE FUNCTION {s}.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO hers.diary VALUES ('function', current_user, session_user);"
    " RETURN 'infinity'::timestamptz; END $$",
    "CREATE FUNCTION {s}.format_type(oid, integer) RETURNS text LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO hers.diary VALUES ('function', current_user, session_user); RETURN 'text'; END $$",
    # A table that looks like the lease, and one like the policies.
    "CREATE TABLE {s}.pg_reaper_lease AS SELECT 1 AS id, 'mallory' AS leader, now() AS acquired_at, 99::bigint AS term",
    "CREATE TABLE {s}.pg_extension AS SELECT * FROM pg_catalog.pg_extension",
]


@pytest.mark.parametrize("sweeper", SWEEPERS)
@pytest.mark.parametrize("path", ["DATABASE postgres", "ROLE mallory", "ROLE postgres"])
def test_no_shadowed_name_is_taken_for_the_real_one(
    make_server: Callable[..., Server], sweeper: Callable[[Server], None], path: str
) -> None:
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    server.execute(
        "GRANT ALL ON hers.diary TO PUBLIC",
        "GRANT USAGE ON SCHEMA hers TO PUBLIC",
        *[trap.format(s="hers") for trap in TRAPS],
        f"ALTER {path} SET search_path = hers, pg_catalog, public",
    )
    # Qualified by hand, since this session has that path too.
    server.execute(
        "INSERT INTO hers.jobs SELECT id, '', 1, pg_catalog.now() + due FROM (VALUES"
        " ('dead', interval '-1 s'), ('alive', interval '1 h')) v (id, due)"
    )
    server.execute("DELETE FROM hers.diary")
    sweeper_in(server, sweeper)
    until_left(server, ["alive"], mallory.TABLE)
    assert mallory.diary(server) == []
    assert server.value("SELECT count(*) FROM public.pg_reaper_policy") == 2


def sweeper_in(server: Server, sweeper: Callable[[Server], None]) -> None:
    """Her path hides the function; whoever sweeps by hand names it in full."""
    if sweeper is mallory.by_worker:
        # The path of its database and role reaches a worker when it starts.
        (old,) = wait_until(server.worker_pids, bool, "the worker")
        server.query("SELECT pg_catalog.pg_terminate_backend(%s)", [old])
        wait_until(server.worker_pids, lambda pids: pids not in ([], [old]), "a worker of the new path")
        sweeper(server)
        return
    with server.connect() as session:
        if sweeper is mallory.by_superuser_as_mallory:
            session.execute("SET ROLE mallory")
        session.execute("SELECT public.pg_reaper_sweep()")


@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_a_trigger_sees_no_schema_but_the_catalogue(
    make_server: Callable[..., Server], sweeper: Callable[[Server], None]
) -> None:
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    mallory.trigger(server, "INSERT INTO hers.diary VALUES (current_setting('search_path'), current_user, '');")
    mallory.orphan(server)
    sweeper(server)
    until_left(server, [], mallory.TABLE)
    assert mallory.diary(server) == [("pg_catalog, pg_temp", "mallory", "")]


@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_what_planning_runs_is_held_in_the_sandbox_too(
    make_server: Callable[..., Server], sweeper: Callable[[Server], None]
) -> None:
    # PostgreSQL runs the function in an index's predicate as soon as it plans a statement.
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    server.execute(
        "CREATE FUNCTION hers.note() RETURNS boolean LANGUAGE plpgsql AS"
        f" $$ BEGIN {mallory.tries('RESET ROLE')} RETURN true; END $$",
        "CREATE FUNCTION hers.innocent(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT hers.note()'",
        "CREATE INDEX ON hers.jobs (remaining) WHERE hers.innocent('x')",
        user="mallory",
    )
    arm(server, "bait", table=mallory.TABLE, user="mallory")
    server.execute("DELETE FROM hers.diary")
    sweeper(server)
    # Looked at with her own eyes, since whoever looks runs the function.
    wait_until(lambda: count(server, mallory.TABLE, user="mallory"), lambda n: n == 0, "the row to be reaped")
    noted = [(note, who) for note, who, session in mallory.diary(server) if session != "mallory"]
    assert noted
    assert {who for _, who in noted} == {"mallory"}
    assert {note[:5] for note, _ in noted} == {"42501"}


def test_a_temporary_table_of_the_caller_stands_in_for_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    arm(server, "dead")
    with server.connect() as session:
        session.execute("CREATE TEMP TABLE pg_reaper_policy (id bigint, relation regclass, builtin boolean)")
        session.execute("CREATE TEMP TABLE pg_extension AS SELECT * FROM pg_catalog.pg_extension LIMIT 0")
        session.execute("CREATE TEMP TABLE pg_class AS SELECT * FROM pg_catalog.pg_class LIMIT 0")
        session.execute("SET search_path = pg_temp, public, pg_catalog")
        assert session.execute("SELECT public.pg_reaper_sweep()").fetchone() == (1,)
    assert ids(server) == []
