"""Settings of the database or the role that would hamper an ordinary session: the worker reaps all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, installation, wait_until
from harness.reaper import adoptable, status, wait_for

HOSTILE = {
    "read only": {"default_transaction_read_only": "on"},
    "serializable and deferrable": {
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
    },
    "a search path that shadows": {"search_path": "hostile, pg_catalog, public"},
    "no triggers": {"session_replication_role": "replica"},
    "foreign dates": {"DateStyle": "SQL, DMY", "TimeZone": "Asia/Kathmandu", "IntervalStyle": "sql_standard"},
    "no time at all": {
        "statement_timeout": "1",
        "lock_timeout": "1",
        "idle_in_transaction_session_timeout": "1",
        **({"transaction_timeout": "1"} if installation.major_version() >= 17 else {}),
    },
    "another role": {"role": "weak"},
    "no row security": {"row_security": "off"},
    "a standby that never comes": {"synchronous_commit": "remote_apply"},
    "no plan to like": {
        "enable_tidscan": "off",
        "enable_indexscan": "off",
        "enable_bitmapscan": "off",
        "enable_seqscan": "off",
        "plan_cache_mode": "force_generic_plan",
        "jit_above_cost": "0",
        "jit": "on",
    },
    "another encoding": {"client_encoding": "LATIN1", "bytea_output": "escape"},
    "quotes around everything": {"quote_all_identifiers": "on", "standard_conforming_strings": "off"},
}

@pytest.fixture
def ready(make_server: Callable[..., Server]) -> Server:
    """Things that shadow, a weak role, and a table whose deletions are counted by a trigger."""
    server = make_server({"pg_reaper.batch_size": "5"})
    wait_for(server, "leader")
    adoptable(server, "watched", ", last_progress_at timestamptz NOT NULL DEFAULT now()")
    server.execute(
        "CREATE ROLE weak",
        "CREATE SCHEMA hostile",
        "CREATE TABLE hostile.pg_barrier_state (LIKE pg_barrier_state)",
        "CREATE TABLE hostile.pg_reaper_lease (LIKE pg_reaper_lease)",
        "CREATE TABLE hostile.pg_reaper_policy (LIKE pg_reaper_policy)",
        "CREATE FUNCTION hostile.lie(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "CREATE OPERATOR hostile.< (FUNCTION = hostile.lie, LEFTARG = timestamptz, RIGHTARG = timestamptz)",
        "CREATE OPERATOR hostile.>= (FUNCTION = hostile.lie, LEFTARG = timestamptz, RIGHTARG = timestamptz)",
        "CREATE TABLE counted (execution_id text)",
        "CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.counted VALUES (OLD.execution_id); RETURN NULL; END $$",
        "CREATE TRIGGER count_one AFTER DELETE ON watched FOR EACH ROW EXECUTE FUNCTION count_one()",
    )
    return server


@pytest.mark.parametrize("settings", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_worker_reaps_under_settings_of_its_database_that_hamper(
    ready: Server, settings: dict[str, str]
) -> None:
    reaps_under(ready, settings, "DATABASE")


def test_the_worker_reaps_under_all_those_settings_of_its_role_at_once(ready: Server) -> None:
    reaps_under(ready, {name: value for settings in HOSTILE.values() for name, value in settings.items()}, "ROLE")


def reaps_under(ready: Server, settings: dict[str, str], whose: str) -> None:
    ids = [f"orphan {n}" for n in range(12)]
    before = status(ready).pid
    # The sessions of the test began before, or they would be hampered as well.
    session = ready.connect()
    for name, value in settings.items():
        literal = value if name == "search_path" else f"'{value}'"
        session.execute(f"ALTER {whose} postgres SET {name} = {literal}")
    session.execute("SELECT pg_terminate_backend(%s)", [before])

    def seen(query: str) -> list[tuple]:
        return session.execute(query).fetchall()

    wait_until(
        lambda: seen("SELECT pid, state FROM pg_reaper_status()"),
        lambda rows: rows[0][1] == "leader" and rows[0][0] != before,
        "the worker to lead again",
    )
    for table in ("watched", "pg_barrier_state"):
        session.execute(
            f"INSERT INTO {table} (execution_id, remaining, created_at, expires_at)"
            " SELECT id, 1, now() - interval '1 h', now() - interval '1 s' FROM unnest(%s::text[]) AS u (id)",
            [ids],
        )
        left = f"SELECT execution_id FROM {table}"
        wait_until(lambda left=left: seen(left), lambda rows: not rows, "all to go", 10)
    assert sorted(name for (name,) in seen("SELECT execution_id FROM counted")) == sorted(ids)
    # Not in spite of errors, nor by starting again and again.
    assert seen("SELECT errors, term FROM pg_reaper_status()") == [(0, 2)]
