"""Whoever owns pg_reaper's own tables, and is no superuser any more, does not become one by them."""

from __future__ import annotations

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import overdue, wait_for, wait_until_reaped
from scenery import log
from scenery.policies import rows, suspended, until_rows, watched, write

SUPER = "SELECT rolsuper FROM pg_roles WHERE rolname = 'installer'"


@pytest.fixture
def demoted(server: Server) -> Server:
    """The extension belongs to somebody who was a superuser once."""
    server.execute("DROP EXTENSION pg_reaper", "CREATE ROLE installer LOGIN SUPERUSER")
    server.execute("CREATE EXTENSION pg_reaper", "CREATE SCHEMA hers", user="installer")
    server.execute("GRANT EXECUTE ON FUNCTION pg_reaper_add_policy TO installer")
    server.execute("ALTER ROLE installer NOSUPERUSER", "GRANT CREATE ON SCHEMA public TO installer")
    wait_for(server, "leader")
    return server


def test_a_trigger_of_the_lease_table_gains_nothing(demoted: Server) -> None:
    demoted.execute(
        "CREATE TABLE hers.seen (who text)",
        "CREATE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO hers.seen VALUES (current_user);"
        " BEGIN ALTER ROLE installer SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NEW; END $$",
        "CREATE TRIGGER evil BEFORE UPDATE ON pg_reaper_lease FOR EACH ROW EXECUTE FUNCTION hers.evil()",
        user="installer",
    )
    wait_until(lambda: demoted.value("SELECT count(*) FROM hers.seen"), description="the lease to be renewed")
    assert demoted.query("SELECT DISTINCT who FROM hers.seen") == [("installer",)]
    assert demoted.value(SUPER) is False


def test_a_trigger_of_the_table_of_policies_gains_nothing(demoted: Server) -> None:
    demoted.execute("CREATE TABLE jobs (id text, due timestamptz)", "CREATE INDEX ON jobs (due)", user="installer")
    policy = demoted.value("SELECT pg_reaper_add_policy('jobs', 'due')")
    demoted.execute(
        "CREATE TABLE hers.seen (who text)",
        "CREATE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO hers.seen VALUES (current_user);"
        " BEGIN ALTER ROLE installer SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN OLD; END $$",
        "CREATE TRIGGER evil BEFORE DELETE ON pg_reaper_policy FOR EACH ROW EXECUTE FUNCTION hers.evil()",
        user="installer",
    )
    demoted.execute("DROP TABLE jobs")
    left = "SELECT count(*) FROM pg_reaper_policy WHERE id = %s"
    wait_until(lambda: demoted.value(left, [policy]), (0).__eq__, "the policy to end with its table")
    assert demoted.query("SELECT DISTINCT who FROM hers.seen") == [("installer",)]
    assert demoted.value(SUPER) is False


def test_a_policy_that_the_installer_writes_runs_nothing_as_somebody_else(demoted: Server) -> None:
    demoted.execute(
        "CREATE FUNCTION hers.evil() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " BEGIN ALTER ROLE installer SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN true; END $$",
        "CREATE TABLE own (id text, due timestamptz, state text)", "CREATE INDEX ON own (due)",
        "INSERT INTO own VALUES ('dead', now() - interval '1 s')",
        user="installer",
    )  # fmt: skip
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="named by a policy") as refused:
        watched(demoted, "jobs")
    assert "superuser" in (refused.value.diag.message_hint or "")
    write(demoted, "jobs", "kept")
    insert = (
        "INSERT INTO pg_reaper_policy (relation, kind, expires_column, filter)"
        " VALUES ('jobs'::regclass, 'expiry', 'due', 'hers.evil()') RETURNING id"
    )
    policy = demoted.value(insert, user="installer")
    wait_until(lambda: log.failures(demoted.log(), "public.jobs"), bool, "the report")
    assert "named by a policy" in (suspended(demoted, policy) or "")
    # What is the installer's own is swept as ever.
    demoted.value("SELECT pg_reaper_add_policy('own', 'due')", user="installer")
    wait_until(lambda: rows(demoted, "own"), lambda left: left == [], "the installer's row to go")
    assert rows(demoted, "jobs") == ["kept"]
    assert demoted.value(SUPER) is False
    demoted.execute("ALTER ROLE installer SUPERUSER")
    wait_until(lambda: suspended(demoted, policy), lambda why: why is None, "the policy to be trusted")
    until_rows(demoted, "jobs")


@pytest.mark.parametrize("table", ["pg_reaper_policy", "pg_reaper_lease"])
def test_what_an_index_of_theirs_has_planned_is_not_run_as_a_superuser(demoted: Server, table: str) -> None:
    # PostgreSQL runs this function whenever it plans a statement on the table.
    demoted.execute(
        "CREATE FUNCTION hers.does() RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
        " ALTER ROLE installer SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END $$",
        "CREATE FUNCTION hers.evil(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM hers.does(); RETURN true; END $$",
        f"CREATE INDEX ON {table} (id) WHERE hers.evil('x')",
        user="installer",
    )
    # It plans all of them anew.
    demoted.execute("SELECT pg_reaper_stop(), pg_reaper_start()")
    wait_for(demoted, "leader")
    overdue(demoted, "due")
    wait_until_reaped(demoted, "due")
    assert demoted.value(SUPER) is False
