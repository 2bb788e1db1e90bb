"""A server short of something: no crash, no crash loop, and all heals by itself."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import (
    AT_ONCE, adoptable, barriers, lease, live, overdue, status, wait_for, wait_for_cycles, wait_until_reaped,
)  # fmt: skip
from scenery import log
from scenery.fleet import TALKATIVE, starts

DUE = (
    "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
    " SELECT 'due ' || n, 1, now() - interval '1 h', now() - interval '1 s' FROM generate_series(1, 5) n"
)


def until_empty(session: psycopg.Connection) -> None:
    """Waits until all is reaped, by a session that is there already."""
    left = lambda: session.execute("SELECT count(*) FROM pg_barrier_state").fetchone()[0]  # noqa: E731
    wait_until(left, lambda n: n == 0, "the barriers to be reaped")


def can_connect(server: Server) -> bool:
    """Whether a new session finds what it needs."""
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def limit_files_of(pid: int, size: str) -> None:
    """Has no file of a process grow beyond a size, as on a disk that is full."""
    installation.run_as_server_user(["prlimit", f"--pid={pid}", f"--fsize={size}:"])


def test_with_all_connections_used_up_the_workers_reap_and_come_back(make_server: Callable[..., Server]) -> None:
    server = make_server({"max_connections": "8", "superuser_reserved_connections": "2"})
    before = wait_for(server, "leader")
    sessions = []
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        for _ in range(20):
            sessions.append(server.connect())
    session, *others = sessions
    session.execute(DUE)
    until_empty(session)
    # Another worker needs no connection either, and another launcher none.
    session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper%'")
    leader = "SELECT pid FROM pg_reaper_status() WHERE state = 'leader'"
    wait_until(lambda: session.execute(leader).fetchall(), lambda rows: rows and rows[0][0] != before.pid, "another")
    session.execute(DUE)
    until_empty(session)
    for other in others:
        other.close()
    assert wait_for(server, "leader").errors == 0
    assert "PANIC" not in server.log()


def test_with_the_lock_table_full_the_worker_stays_and_heals(make_server: Callable[..., Server]) -> None:
    server = make_server(
        {
            "max_locks_per_transaction": "10",
            "max_connections": "10",
            "max_worker_processes": "4",
            "max_wal_senders": "0",
            "autovacuum_max_workers": "1",
            "pg_reaper.lease_duration": "1s",
            **TALKATIVE,
        }
    )
    before = wait_for(server, "leader")
    live(server, "live")
    mark = server.log_mark()
    session = server.connect(autocommit=False)
    with pytest.raises(psycopg.errors.OutOfMemory, match="out of shared memory"):
        # What is taken until the session ends stays when the statement fails.
        session.execute("SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 1000000) AS n")
    session.rollback()
    session.autocommit = True
    # The failed statement has given back a lock or two of its own.
    for n in range(2_000_000, 2_000_100):
        try:
            session.execute("SELECT pg_advisory_lock(%s)", [n])
        except psycopg.errors.OutOfMemory:
            break
    wait_until(lambda: server.log_since(mark), lambda text: "SQLSTATE 53200" in text, "the worker to be told")
    wait_until(lambda: server.log_since(mark).count("SQLSTATE 53200"), lambda n: n >= 2, "it to try again")
    # Once whoever has the locks has ended, they are free again.
    session.close()
    wait_until(lambda: can_connect(server), bool, "the locks to be given back")
    overdue(server, "due")
    wait_until_reaped(server, "due", timeout=90)
    after = wait_for(server, "leader")
    assert after.pid == before.pid
    assert starts(server, mark) == 0
    assert barriers(server) == {"live"}


@pytest.mark.parametrize("mode", ["fast", "smart"])
def test_with_wal_archiving_failing_rows_are_reaped_and_the_server_stops(
    make_server: Callable[..., Server], mode: str
) -> None:
    server = make_server({"archive_mode": "on", "archive_command": "false", "archive_timeout": "1s"})
    before = wait_for(server, "leader")
    for n in range(3):
        overdue(server, f"due {n}")
        wait_until_reaped(server, f"due {n}")
        server.execute("SELECT pg_switch_wal()")
    wait_until(
        lambda: server.value("SELECT failed_count FROM pg_stat_archiver"), lambda n: n >= 1, "archiving to fail"
    )
    after = wait_for_cycles(server)
    assert (after.pid, after.term, after.errors) == (before.pid, before.term, 0)
    # The archiver tries for some seconds more; the worker is not what it waits for.
    server.stop(mode, timeout=AT_ONCE + 5)
    assert "pg_reaper released term 1: the worker is leaving" in server.log()


def test_a_file_that_cannot_grow_fails_the_sweep_of_that_table_and_heals(make_server: Callable[..., Server]) -> None:
    server = make_server()
    adoptable(server, "other")
    before = wait_for(server, "leader")
    # A trigger that keeps a megabyte of each row that goes.
    server.execute(
        "CREATE TABLE kept (execution_id text, image text)",
        "ALTER TABLE kept ALTER image SET STORAGE EXTERNAL",
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.kept VALUES (OLD.execution_id, repeat('x', 1000000)); RETURN OLD; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION keep()",
        "INSERT INTO kept SELECT 'fill', repeat('x', 1000000) FROM generate_series(1, 18)",
        # Out of the buffers, so that what fails is the file's growing and no write of old pages.
        "CHECKPOINT",
    )
    live(server, "live")
    # A segment of the WAL fits.
    limit_files_of(before.pid, str(17 << 20))
    overdue(server, "one", "two")
    found = wait_until(lambda: log.failures(server.log(), "public.pg_barrier_state"), bool, "the report")
    assert "could not" in found[0].message and "file" in found[0].message
    # Others are swept meanwhile, and nothing of the batch was kept.
    overdue(server, "quick", table="other")
    wait_until_reaped(server, "quick", table="other")
    assert barriers(server) == {"live", "one", "two"}
    limit_files_of(before.pid, "unlimited")
    wait_until_reaped(server, "one", "two", timeout=90)
    after = status(server)
    assert (after.pid, after.term, lease(server).term) == (before.pid, before.term, before.term)
    assert server.value("SELECT count(*) FROM kept WHERE execution_id <> 'fill'") == 2
    assert barriers(server) == {"live"}


def test_without_a_process_slot_for_any_worker_nothing_crashes_and_one_line_says_so(
    make_server: Callable[..., Server],
) -> None:
    # Room for the launcher alone.
    server = make_server({"max_worker_processes": "1", "max_logical_replication_workers": "0", **TALKATIVE})
    wait_until(server.log, lambda text: "no worker slot is free" in text, "the line that says so")
    launcher = server.launcher_pid()
    # It asks again and again meanwhile.
    began = server.value("SELECT now()")
    wait_until(lambda: server.value("SELECT now() > %s + interval '4 s'", [began]), bool, "4 s to pass")
    assert server.launcher_pid() == launcher
    assert starts(server) == 0
    assert server.log().count("no worker slot is free") == 1
    overdue(server, "due")
    assert server.value("SELECT pg_reaper_sweep()") == 1
