"""Hostile settings in postgresql.conf, of a role, a database, or both together: the results are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import wait_for
from scenery import log

HOSTILE = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "search_path": "hostile, pg_catalog, public",
    "session_replication_role": "replica",
    "row_security": "off",
    "DateStyle": "Postgres, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    # Less than that in the file, and nobody gets in.
    **({"transaction_timeout": "150"} if installation.major_version() >= 17 else {}),
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "temp_tablespaces": "nowhere",
    "commit_delay": "1000",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_bitmapscan": "off",
    "enable_tidscan": "off",
    "synchronous_commit": "remote_apply",
    "client_min_messages": "debug5",
    "log_statement": "all",
    "track_activities": "off",
    "track_counts": "off",
    "jit_above_cost": "0",
    "work_mem": "64kB",
    "vacuum_cost_delay": "100",
    "gin_fuzzy_search_limit": "1",
}
SERIALIZABLE = {**HOSTILE, "default_transaction_isolation": "serializable"}

# What would keep the server from starting.
NOT_IN_FILE = {"temp_tablespaces"}

# Sessions of the test are not to suffer.
CALM = "-c " + " -c ".join(
    [
        "default_transaction_isolation=read\\ committed", "default_transaction_read_only=off",
        "default_transaction_deferrable=off", "search_path=public", "session_replication_role=origin",
        "row_security=on", "DateStyle=ISO", "IntervalStyle=postgres", "TimeZone=UTC", "statement_timeout=0", "lock_timeout=0",
        "idle_in_transaction_session_timeout=0", "synchronous_commit=local", "standard_conforming_strings=on",
        "client_min_messages=notice", "track_activities=on", "temp_tablespaces=",
        *(["transaction_timeout=0"] if installation.major_version() >= 17 else []),
    ]
)  # fmt: skip


def in_the_file(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    server.configure({name: value for name, value in settings.items() if name not in NOT_IN_FILE})


def of_the_database(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    alter(session, "DATABASE postgres", settings)


def of_the_role(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    alter(session, "ROLE postgres", settings)


def of_all_roles(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    alter(session, "ROLE ALL", settings)


def of_the_role_in_the_database(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    alter(session, "ROLE postgres IN DATABASE postgres", settings)


def everywhere(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    for place in (in_the_file, of_the_database, of_the_role):
        place(server, session, settings)


def nowhere(server: Server, session: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    """To compare with."""


def alter(session: psycopg.Connection[Any], whose: str, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        literal = value if name == "search_path" else f"'{value}'"
        session.execute(f"ALTER {whose} SET {name} = {literal}")


PLACES = [nowhere, in_the_file, of_the_database, of_the_role, of_all_roles, of_the_role_in_the_database, everywhere]


@pytest.mark.parametrize("settings", [HOSTILE, SERIALIZABLE], ids=["repeatable read", "serializable"])
@pytest.mark.parametrize("place", PLACES, ids=lambda f: f.__name__)
def test_the_results_are_the_same(make_server: Callable[..., Server], place: Callable[..., None], settings: dict[str, str]) -> None:
    server = make_server({"pg_reaper.enabled": "off", "pg_reaper.batch_size": "5", "pg_reaper.stuck_timeout": "1h"})
    session = server.connect()
    for statement in (*SCENE, ARM.format(table="pg_barrier_state"), ARM.format(table="watched")):
        session.execute(statement)
    place(server, session, settings)
    server.configure({"pg_reaper.enabled": "on"})
    server.restart()
    before = wait_for(server, "leader", options=CALM)
    session = server.connect(options=CALM)

    def left(table: str) -> list[str]:
        return [name for (name,) in session.execute(f"SELECT execution_id FROM {table} ORDER BY 1")]

    for table in ("pg_barrier_state", "watched"):
        wait_until(lambda table=table: left(table), lambda now: now == ["live"], f"{table} to be swept")
    # Its triggers fired, which tell what the time was.
    due = sorted([*(f"due {n}" for n in range(1, 13)), "stuck"])
    assert [name for (name,) in session.execute("SELECT execution_id FROM counted ORDER BY 1")] == due
    session.execute("INSERT INTO watched (execution_id, remaining, created_at, expires_at)"
        " SELECT 'again', 1, '-infinity', now() - interval '1 s'")
    wait_until(lambda: left("watched"), lambda now: now == ["live"], "what came later to be swept")
    # Not in spite of errors, nor by starting again and again.
    after = wait_until(
        lambda: wait_for(server, "leader", options=CALM), lambda row: row.rows_reaped == 27, "27 rows to be counted"
    )
    assert (after.pid, after.term, after.errors) == (before.pid, before.term, 0)
    told = log.until_told(server, *due, "again")
    assert set(told) == {*due, "again"}
    for name, (_, record) in told.items():
        assert record["reason"] == "tasks never completed"
        assert record["rule"] == ("stuck" if name == "stuck" else "expired")
        assert record["relation"] in ("public.watched", "public.pg_barrier_state")
        ago = session.execute("SELECT now() - %s::timestamptz", [record["deadline"]]).fetchone()[0].total_seconds()
        # As long ago as it was armed with, whichever way round days and months are written.
        assert 0 < ago - (3600 if name == "stuck" else 0 if name == "again" else 86400) < 120
        assert abs(record["lateness_ms"] / 1000 - ago) < 120


SCENE = [
    "CREATE ROLE owner",
    "CREATE TABLE watched (LIKE pg_barrier_state INCLUDING ALL)",
    "CREATE TABLE counted (execution_id text)",
    "CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO public.counted VALUES (OLD.execution_id); RETURN NULL; END $$",
    "CREATE TRIGGER count_one AFTER DELETE ON watched FOR EACH ROW WHEN (OLD.execution_id <> 'again')"
    " EXECUTE FUNCTION count_one()",
    "GRANT ALL ON SCHEMA public TO owner",
    "ALTER TABLE counted OWNER TO owner",
    "ALTER TABLE watched OWNER TO owner",
    "ALTER TABLE watched ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "SELECT pg_reaper_adopt('watched')",
    "CREATE SCHEMA hostile",
    "CREATE TABLE hostile.pg_barrier_state (LIKE pg_barrier_state)",
    "CREATE TABLE hostile.pg_reaper_lease (LIKE pg_reaper_lease)",
    "CREATE TABLE hostile.pg_reaper_policy (LIKE pg_reaper_policy)",
    "CREATE FUNCTION hostile.lie(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
    "CREATE OPERATOR hostile.< (FUNCTION = hostile.lie, LEFTARG = timestamptz, RIGHTARG = timestamptz)",
    "CREATE OPERATOR hostile.>= (FUNCTION = hostile.lie, LEFTARG = timestamptz, RIGHTARG = timestamptz)",
]

ARM = (
    "INSERT INTO {table} (execution_id, remaining, created_at, expires_at, last_progress_at)"
    " SELECT 'due ' || n, 1, '-infinity'::timestamptz, now() - interval '1 day', now() FROM generate_series(1, 12) n"
    " UNION ALL SELECT 'stuck', 1, '-infinity', now() + interval '1 h', now() - interval '2 h'"
    " UNION ALL SELECT 'live', 1, now(), now() + interval '1 h', now()"
)


def test_the_launcher_waits_for_nobody_s_transaction(make_server: Callable[..., Server]) -> None:
    # A transaction with these three waits, to begin, until those that are serializable have ended.
    server = make_server(
        {
            "default_transaction_isolation": "serializable",
            "default_transaction_read_only": "on",
            "default_transaction_deferrable": "on",
        },
        extension=False,
    )
    session = server.connect(options="-c default_transaction_read_only=off")
    session.execute("CREATE EXTENSION pg_reaper")
    before = wait_for(server, "leader", options=CALM)
    long = server.connect(autocommit=False, options="-c default_transaction_read_only=off")
    long.execute("CREATE TABLE busy ()")
    long.execute("SELECT pg_current_xact_id()")
    server.connect(options=CALM).execute("SELECT pg_terminate_backend(%s)", [before.pid])
    wait_until(
        lambda: wait_for(server, "leader", options=CALM).pid, lambda pid: pid != before.pid, "the worker to be back"
    )
