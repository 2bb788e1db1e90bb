"""``pg_reaper_status()``: what an operator sees, and that it does not lie."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import adoptable, lease, overdue, status, statuses, wait_for, wait_for_sweep, wait_until_reaped


def cursed(server: Server, sqlstate: str = "P0001") -> Callable[[], None]:
    """Adopts a table whose only overdue row fails its sweep; what is returned lifts that."""
    server.set(**{"pg_reaper.quarantine_limit": 0})
    adoptable(server, "cursed")
    server.execute(
        "CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'cursed' USING ERRCODE = '{sqlstate}'; END $$",
        "CREATE TRIGGER curse BEFORE DELETE ON cursed FOR EACH ROW EXECUTE FUNCTION curse()",
    )
    server.query(
        "INSERT INTO cursed (execution_id, created_at, expires_at)"
        " VALUES ('stays', now() - interval '1 h', now() - interval '1 s')"
    )
    return lambda: server.execute("DROP TRIGGER curse ON cursed")


def test_a_healthy_leader_shows_itself_in_every_column(server: Server) -> None:
    began = server.value("SELECT pg_postmaster_start_time()")
    wait_for(server, "leader")
    overdue(server, "one", "two", "three")
    wait_until_reaped(server, "one", "two", "three")
    row = wait_for_sweep(server)
    now = server.value("SELECT clock_timestamp()")
    assert row.database == "postgres"
    assert [row.pid] == server.worker_pids()
    assert row.pid != server.launcher_pid()
    assert row.state == "leader"
    assert (row.leader, row.term) == lease(server)[:2]
    assert began < row.started_at < row.last_sweep <= row.last_cycle <= now
    assert now - row.last_sweep < timedelta(seconds=30)
    assert row.rows_reaped == 3
    assert (row.errors, row.failures_in_a_row, row.last_error, row.last_error_at) == (0, 0, None, None)


def test_a_worker_that_fails_every_time_turns_but_does_not_look_healthy(server: Server) -> None:
    wait_for(server, "leader")
    lift = cursed(server)
    first = wait_until(lambda: status(server), lambda row: row.failures_in_a_row >= 1, "the first failure")
    later = wait_until(
        lambda: status(server),
        lambda row: row.failures_in_a_row >= 3 and row.last_cycle > row.last_error_at,
        "the third failure in a row",
    )
    assert later.last_cycle > first.last_cycle
    assert later.last_sweep == first.last_sweep, "a sweep that failed was told as a successful one"
    assert later.errors == later.failures_in_a_row
    assert later.last_error == "public.cursed: cursed (SQLSTATE P0001)"
    assert later.last_error_at > first.last_error_at
    # The other table is swept all the same.
    overdue(server, "unharmed")
    wait_until_reaped(server, "unharmed")
    assert status(server).last_sweep == first.last_sweep

    lift()
    healed = wait_until(lambda: status(server), lambda row: row.failures_in_a_row == 0, "the failures to end")
    assert healed.rows_reaped == 2
    assert healed.errors >= later.errors
    assert healed.last_error == later.last_error, "what happened last is still worth knowing"
    wait_until(lambda: status(server), lambda row: row.last_sweep not in (None, first.last_sweep), "a successful sweep")
    assert status(server).pid == first.pid


def test_an_error_code_of_the_application_s_own_is_told_as_it_is(server: Server) -> None:
    wait_for(server, "leader")
    cursed(server, sqlstate="RE001")
    row = wait_until(lambda: status(server), lambda row: row.errors > 0, "the error")
    assert row.last_error == "public.cursed: cursed (SQLSTATE RE001)"
    assert "DETAIL:  SQLSTATE RE001" in server.log()


def test_a_standby_has_no_term_and_no_new_sweep(server: Server) -> None:
    wait_for(server, "leader")
    wait_for_sweep(server)
    server.execute(
        "UPDATE pg_reaper_lease SET leader = 'outside', term = term + 1,"
        " acquired_at = clock_timestamp() + interval '2 s'"
    )
    first = wait_for(server, "standby")
    later = wait_until(lambda: status(server), lambda row: row.last_cycle > first.last_cycle, "another cycle")
    assert (later.term, later.last_sweep) == (None, first.last_sweep)


def test_only_those_who_may_monitor_may_ask(server: Server) -> None:
    server.execute("CREATE ROLE anybody LOGIN", "CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="pg_reaper_status"):
        server.query("SELECT * FROM pg_reaper_status()", user="anybody")
    wait_for(server, "leader")
    assert len(server.query("SELECT * FROM pg_reaper_status()", user="watcher")) == 1


def test_without_the_preload_and_shared_memory_a_notice_says_why_there_is_no_row(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(preload=False)
    session = server.connect()
    notices: list[tuple[str | None, str | None]] = []
    session.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    assert session.execute("SELECT * FROM pg_reaper_status()").fetchall() == []
    if installation.major_version() >= 17:
        # There could be rows: see test_launcher_unloaded.py.
        assert notices == []
        return
    ((severity, message),) = notices
    assert severity == "NOTICE"
    assert message is not None and "shared_preload_libraries" in message


def test_a_database_without_a_worker_can_ask_too(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "postgres"})
    server.execute("CREATE DATABASE other")
    server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper", dbname="other")
    wait_for(server, "leader")
    assert [row.database for row in statuses(server, dbname="other")] == ["postgres"]
