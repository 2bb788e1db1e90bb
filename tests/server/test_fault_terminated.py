"""A launcher told to end, and a worker told to end while the launcher cannot help: both are back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from harness import Server, wait_until
from harness.reaper import AT_ONCE, lease, overdue, wait_for, wait_until_reaped, watch_lease, waits_for_lock
from scenery.busy import UNHURRIED, Brake


def end(server: Server, pid: int, session: psycopg.Connection[Any] | None = None) -> None:
    """Tells a process to end, and waits until it has."""
    (session or server.connect()).execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: pid in server.children(), lambda there: not there, "the process to end", AT_ONCE)


def until_another_launcher(server: Server, than: int) -> int:
    pid = wait_until(server.launcher_pid, lambda pid: pid not in (None, than), "another launcher")
    assert pid is not None
    return pid


def test_a_launcher_ends_at_once_and_a_worker_deep_in_a_batch_keeps_its_lease(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(UNHURRIED)
    before = wait_for(server, "leader")
    moves = watch_lease(server)
    brake = Brake(server)
    overdue(server, "one", "two")
    assert brake.wait_for_arrival() == before.pid
    for _ in range(3):
        launcher = server.launcher_pid()
        end(server, launcher)
        until_another_launcher(server, launcher)
    brake.release()
    wait_until_reaped(server, "one", "two")
    assert moves() == []
    assert server.worker_pids() == [before.pid]


def test_a_launcher_that_waits_for_a_lock_ends_at_once(make_server: Callable[..., Server]) -> None:
    server = make_server(UNHURRIED)
    before = wait_for(server, "leader")
    launcher = server.launcher_pid()
    blocker = server.connect(autocommit=False)
    # What it reads to know which databases there are; a session that is there stays.
    blocker.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
    waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    wait_until(lambda: blocker.execute(waits, [launcher]).fetchone()[0], bool, "the launcher to wait")
    end(server, launcher, blocker)
    blocker.rollback()
    until_another_launcher(server, launcher)
    assert wait_for(server, "leader").pid == before.pid
    server.execute("CREATE DATABASE later")
    server.execute("CREATE EXTENSION pg_reaper", dbname="later")
    wait_for(server, "leader", database="later")


def test_the_server_stops_promptly_while_the_launcher_waits_for_a_lock(make_server: Callable[..., Server]) -> None:
    server = make_server(UNHURRIED)
    wait_for(server, "leader")
    launcher = server.launcher_pid()
    blocker = server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
    waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    wait_until(lambda: blocker.execute(waits, [launcher]).fetchone()[0], bool, "the launcher to wait")
    server.stop("fast", timeout=AT_ONCE)


def test_worker_and_launcher_told_to_end_at_once_are_both_back(make_server: Callable[..., Server]) -> None:
    server = make_server(UNHURRIED)
    before = wait_for(server, "leader")
    moves = watch_lease(server)
    brake = Brake(server)
    overdue(server, "one", "two")
    brake.wait_for_arrival()
    launcher = server.launcher_pid()
    session = server.connect()
    session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper%'")
    wait_until(server.worker_pids, lambda pids: before.pid not in pids, "the worker to leave", AT_ONCE)
    assert moves()[0][:2] == ("", before.term)
    brake.release()
    until_another_launcher(server, launcher)
    after = wait_for(server, "leader")
    assert after.pid != before.pid
    assert lease(server).term == before.term + 1
    wait_until_reaped(server, "one", "two")


def test_a_worker_that_waits_for_another_s_row_in_a_trigger_ends_at_once(make_server: Callable[..., Server]) -> None:
    server = make_server(UNHURRIED)
    before = wait_for(server, "leader")
    server.execute(
        "CREATE TABLE tally (n int)",
        "INSERT INTO tally VALUES (0)",
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE public.tally SET n = n + 1; RETURN OLD; END $$",
        "CREATE TRIGGER tally BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION tally()",
    )
    moves = watch_lease(server)
    holder = server.connect(autocommit=False)
    holder.execute("UPDATE tally SET n = 0")
    overdue(server, "one", "two")
    wait_until(lambda: waits_for_lock(server, before.pid), bool, "the worker to wait")
    end(server, before.pid)
    assert moves()[0][:2] == ("", before.term)
    holder.rollback()
    wait_until_reaped(server, "one", "two")
    # Nothing of the first try was kept.
    assert server.value("SELECT n FROM tally") == 2
