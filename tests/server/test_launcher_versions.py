"""Library and SQL of different versions: the worker lives, does what is safe, and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped
from scenery import log
from scenery.fleet import served, workers

FUNCTIONS = (
    "SELECT proname::text, proacl::text, pg_get_functiondef(pg_proc.oid), obj_description(pg_proc.oid, 'pg_proc')"
    " FROM pg_proc JOIN pg_depend d ON d.objid = pg_proc.oid"
    " WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass ORDER BY 1"
)


def library(server: Server) -> str:
    """The version of the library, which is what CREATE EXTENSION makes."""
    return server.value("SELECT default_version FROM pg_available_extensions WHERE name = 'pg_reaper'")


def said(server: Server, sql: str, since: int = 0) -> list[log.Entry]:
    """What was said of an extension of this version."""
    line = f'pg_reaper: extension {sql} in database "postgres" is served by library {library(server)}'
    return [entry for entry in log.entries(server.log_since(since)) if entry.message == line]


@pytest.fixture
def older(make_server: Callable[..., Server]) -> Server:
    """A server of the new library in which the extension was created by the old one."""
    server = make_server(extension=False)
    server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper VERSION '0.1.0'")
    # As after an upgrade of the package.
    server.restart()
    return server


def test_older_sql_is_served_and_a_line_of_the_log_says_what_to_do(older: Server) -> None:
    wait_for(older, "leader")
    overdue(older, "due")
    wait_until_reaped(older, "due")
    wait_for_cycles(older)
    (entry,) = said(older, "0.1.0")
    assert entry.severity == "LOG"
    assert "ALTER EXTENSION pg_reaper UPDATE" in entry.hint
    assert older.value("SELECT pg_reaper_sweep()") == 0
    older.execute("CREATE TABLE jobs (execution_id text, expires_at timestamptz)")
    assert older.value("SELECT pg_reaper_adopt('jobs')") == 2
    # It has the columns that it was made with.
    assert status(older)._fields[-1] == "last_error_at"
    with pytest.raises(psycopg.errors.UndefinedFunction):
        older.query("SELECT pg_reaper_stop()")


def test_an_update_brings_what_is_new_and_the_worker_goes_on(older: Server) -> None:
    before = wait_for(older, "leader")
    older.execute("ALTER EXTENSION pg_reaper UPDATE")
    wait_for_cycles(older)
    after = wait_for(older, "leader")
    assert (after.pid, after.term) == (before.pid, before.term)
    assert older.value("SELECT pg_reaper_stop()") == 1
    assert served(older) == []
    assert older.value("SELECT pg_reaper_start()") in workers(older)
    # It says no more of it.
    mark = older.log_mark()
    overdue(older, "due")
    wait_until_reaped(older, "due")
    assert said(older, "0.1.0", mark) == []


def test_an_updated_extension_is_the_same_as_a_new_one(older: Server) -> None:
    older.execute("ALTER EXTENSION pg_reaper UPDATE", "CREATE DATABASE new")
    older.execute("CREATE EXTENSION pg_reaper", dbname="new")
    assert older.query(FUNCTIONS) == older.query(FUNCTIONS, dbname="new")


def test_an_update_starts_the_worker_where_the_old_script_did_not(make_server: Callable[..., Server]) -> None:
    # The script of 0.1.0 announces nothing.
    server = make_server({"log_min_messages": "debug1"}, extension=False)
    gone = 'background worker "pg_reaper worker" (PID '
    wait_until(server.log, lambda text: gone in text, "the database to be looked into")
    server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper VERSION '0.1.0'")
    assert workers(server) == {}
    server.execute("ALTER EXTENSION pg_reaper UPDATE")
    wait_for(server, "leader")


def pretend(server: Server, version: str) -> None:
    """Has the catalogue say that the extension has this version."""
    server.query("UPDATE pg_extension SET extversion = %s WHERE extname = 'pg_reaper'", [version])


def test_newer_sql_is_not_served_and_a_warning_says_what_to_do(server: Server) -> None:
    before = wait_for(server, "leader")
    pretend(server, "9.9.9")
    row = wait_for(server, "outdated")
    assert (row.pid, row.term) == (before.pid, None)
    assert lease(server).leader == "", "the lease was not released"
    overdue(server, "due")
    wait_for_cycles(server)
    assert barriers(server) == {"due"}
    (entry,) = said(server, "9.9.9")
    assert entry.severity == "WARNING"
    assert "restart" in entry.hint
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="9.9.9") as refused:
        server.query("SELECT pg_reaper_sweep()")
    assert "Restart the server" in (refused.value.diag.message_hint or "")
    assert barriers(server) == {"due"}


def test_it_heals_when_the_versions_match_again(server: Server) -> None:
    before = wait_for(server, "leader")
    own = library(server)
    pretend(server, "9.9.9")
    wait_for(server, "outdated")
    overdue(server, "due")
    pretend(server, own)
    wait_until_reaped(server, "due")
    row = wait_for(server, "leader")
    assert (row.pid, row.term) == (before.pid, before.term + 1)
    # And it is said again when it happens again.
    mark = server.log_mark()
    pretend(server, "9.9.9")
    wait_until(lambda: said(server, "9.9.9", mark), bool, "the warning")


@pytest.mark.parametrize("version", ["next", "0.2.0-rc1"])
def test_a_version_that_cannot_be_read_is_taken_for_a_newer_one(server: Server, version: str) -> None:
    wait_for(server, "leader")
    pretend(server, version)
    wait_for(server, "outdated")


def test_a_worker_of_newer_sql_can_still_be_stopped_and_started(server: Server) -> None:
    wait_for(server, "leader")
    pretend(server, "9.9.9")
    wait_for(server, "outdated")
    assert server.value("SELECT pg_reaper_stop()") == 1
    assert server.value("SELECT pg_reaper_start()") in workers(server)
    wait_for(server, "outdated")
    assert status(server).rows_reaped == 0
