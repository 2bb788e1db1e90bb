"""Locks, deadlocks and slow triggers: the worker gives way, and comes back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import Gate, wait_for
from scenery import log
from scenery.barriers import (
    BY_HAND, adopted, arm, arm_many, count, status, until_empty, until_leading, until_left,
)  # fmt: skip

TABLE = "public.jobs"


@pytest.fixture
def jobs(server: Server) -> Server:
    """A server whose worker leads, with a table adopted before another."""
    # Well below the longest statement, so that it is known which of the two ran out.
    server.set(**{"pg_reaper.lock_timeout": "200ms"})
    adopted(server, TABLE)
    adopted(server, "public.others")
    until_leading(server)
    return server


def until_failed(server: Server, times: int = 1) -> list[log.Entry]:
    """Waits until the sweep of the table has failed so often; the reports."""
    return wait_until(
        lambda: log.failures(server.log(), TABLE), lambda found: len(found) >= times, f"{times} failures"
    )


def test_a_table_that_somebody_keeps_locked_is_given_up_and_taken_up_again(jobs: Server) -> None:
    before = status(jobs)
    holder = jobs.connect(autocommit=False)
    holder.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
    (failure, *_) = until_failed(jobs)
    assert failure.detail.startswith("SQLSTATE 55P03")
    assert "pg_reaper.lock_timeout" in failure.hint
    arm(jobs, "innocent", table="public.others")
    until_empty(jobs, "public.others")
    holder.execute("INSERT INTO jobs VALUES ('late', '', 1, now())")
    holder.commit()
    until_empty(jobs, TABLE)
    assert (status(jobs)["pid"], status(jobs)["term"]) == (before["pid"], before["term"])


def test_a_lock_that_lets_rows_be_read_but_not_deleted_is_given_up_as_soon(jobs: Server) -> None:
    # As CREATE INDEX holds it. Trying ever smaller batches is no remedy, and takes ten times
    # as long as one try.
    jobs.set(**{"pg_reaper.enabled": "off"})
    wait_for(jobs, "disabled")
    arm_many(jobs, 1000, "now() - interval '1 s'", table=TABLE)
    holder = jobs.connect(autocommit=False)
    holder.execute("LOCK TABLE jobs IN SHARE MODE")
    tries: set[object] = set()
    jobs.set(**{"pg_reaper.enabled": "on"})

    def reported() -> bool:
        waiting = jobs.query("SELECT query_start, xact_start FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        tries.update(waiting)
        return bool(log.failures(jobs.log(), TABLE))

    wait_until(reported, bool, "the failure in the log", timeout=60)
    assert len(tries) <= 2
    holder.rollback()
    until_empty(jobs, TABLE)


def test_alter_table_by_a_user_does_not_wait_behind_a_long_pass(make_server: Callable[..., Server]) -> None:
    server = make_server({**BY_HAND, "pg_reaper.batch_size": "10", "pg_reaper.log_limit": "0"})
    adopted(server, TABLE)
    server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    # Far more work than a user would wait for: the pass lasts a minute and more.
    arm_many(server, 10_000, "now() - n * interval '1 s'", table=TABLE)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: count(server, TABLE), lambda n: n < 9_900, "the pass to be under way")
    with server.connect() as user:
        user.execute("SET statement_timeout = '10s'")
        user.execute("ALTER TABLE jobs ADD extra int")
    assert count(server, TABLE) > 1000


def test_a_deadlock_costs_one_try(make_server: Callable[..., Server]) -> None:
    # The session begins to wait when the worker does already, and has looked for a deadlock in vain. The
    # worker gives up in half the time in which others look for one.
    server = make_server(
        {"pg_reaper.lease_duration": "60s", "pg_reaper.lock_timeout": "20s", "deadlock_timeout": "1s", **BY_HAND}
    )
    adopted(server, TABLE)
    server.execute(
        "CREATE TABLE tally (n int)",
        "INSERT INTO tally VALUES (0)",
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE public.tally SET n = n + 1; RETURN OLD; END $$",
        "CREATE TRIGGER tally BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION tally()",
    )
    arm(server, "x", table=TABLE)
    session = server.connect(autocommit=False)
    session.execute("SET deadlock_timeout = '1h'")
    session.execute("UPDATE tally SET n = n + 1")
    (worker,) = wait_until(server.worker_pids, bool, "the worker")
    server.set(**{"pg_reaper.enabled": "on"})
    # Longer than the moment that a range waits before it is taken by another road.
    waits = (
        "SELECT count(*) FROM pg_locks"
        " WHERE pid = %s AND NOT granted AND waitstart < clock_timestamp() - interval '100 ms'"
    )
    wait_until(lambda: server.value(waits, [worker]), bool, "the worker to wait for the session")
    # Until the worker has given way, this waits for the row that it holds.
    session.execute("SELECT FROM jobs FOR UPDATE")
    session.commit()
    (failure, *_) = until_failed(server)
    assert failure.detail.startswith("SQLSTATE 55P03")
    until_empty(server, TABLE)
    assert server.worker_pids() == [worker]


def test_of_two_that_wait_for_each_other_it_is_never_the_foreground_that_fails(make_server: Callable[..., Server]) -> None:
    # Whoever has waited for deadlock_timeout looks for a deadlock, and fails where it finds one.
    server = make_server(
        {"pg_reaper.lease_duration": "60s", "pg_reaper.lock_timeout": "20s", "deadlock_timeout": "2s", **BY_HAND}
    )
    adopted(server, TABLE)
    gate = Gate(server, "gate", table=TABLE)
    server.execute(
        "CREATE TABLE tally (n int)",
        "INSERT INTO tally VALUES (0)",
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE public.tally SET n = n + 1; RETURN OLD; END $$",
        "CREATE TRIGGER tally BEFORE DELETE ON jobs FOR EACH ROW WHEN (OLD.execution_id ~ '^gate')"
        " EXECUTE FUNCTION tally()",
    )
    # After it has met a locked row, the worker passes over such rows, and waits for other locks longer.
    arm(server, "locked", "free", table=TABLE)
    with server.connect() as holder, server.connect() as session, ThreadPoolExecutor() as pool:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM jobs WHERE execution_id = 'locked' FOR UPDATE")
        server.set(**{"pg_reaper.enabled": "on"})
        until_left(server, ["locked"], TABLE)
        session.execute("BEGIN")
        session.execute("UPDATE tally SET n = n + 1")
        arm(server, "gate", table=TABLE)
        gate.wait_for_arrival()
        # For so long that it would look for a deadlock before the worker gave up.
        waits = (
            "SELECT count(*) FROM pg_locks"
            " WHERE pid = %s AND NOT granted AND waitstart < clock_timestamp() - interval '1.2 s'"
        )
        wanted = pool.submit(session.execute, "SELECT FROM jobs WHERE execution_id = 'gate' FOR UPDATE")
        pid = session.info.backend_pid
        wait_until(lambda: server.value(waits, [pid]), bool, "the session to wait for the worker")
        gate.open()
        wanted.result(timeout=30)
        session.execute("COMMIT")
        until_left(server, ["locked"], TABLE)
        holder.execute("ROLLBACK")
    until_empty(server, TABLE)


def test_batches_that_take_too_long_are_made_smaller_until_they_go_through(make_server: Callable[..., Server]) -> None:
    # A second for a statement, and a row takes 20 ms: of a thousand rows no batch goes through.
    server = make_server({"pg_reaper.lease_duration": "3s", "pg_reaper.log_limit": "0", **BY_HAND})
    adopted(server, TABLE)
    server.execute(
        "CREATE TABLE batches (rows bigint)",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION slow()",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.batches SELECT count(*) FROM gone; RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER DELETE ON jobs REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    arm_many(server, 150, "now() - n * interval '1 s'", table=TABLE)
    server.set(**{"pg_reaper.enabled": "on"})
    until_empty(server, TABLE, timeout=60)
    assert server.value("SELECT max(rows) FROM batches") < 50
    assert server.value("SELECT sum(rows) FROM batches") == 150


def test_cancelling_the_worker_costs_one_try(jobs: Server) -> None:
    jobs.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM public.others) THEN PERFORM pg_sleep(30); END IF; RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    arm(jobs, "brake", due="1 h", table="public.others")
    worker = status(jobs)["pid"]
    arm(jobs, "x", table=TABLE)
    wait_until(
        lambda: jobs.value("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"),
        bool,
        "the trigger to be asleep",
    )
    (failure, *_) = until_failed(jobs)
    assert failure.detail.startswith("SQLSTATE 57014")
    jobs.execute("DELETE FROM others")
    until_empty(jobs, TABLE)
    assert status(jobs)["pid"] == worker


def test_a_sweep_by_hand_gives_up_a_locked_table_and_sweeps_the_rest(make_server: Callable[..., Server]) -> None:
    server = make_server({**BY_HAND, "pg_reaper.lock_timeout": "200ms"})
    adopted(server, TABLE)
    arm(server, "x", table=TABLE)
    arm(server, "innocent")
    holder = server.connect(autocommit=False)
    holder.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
    assert server.value("SELECT pg_reaper_sweep()") == 1
    with server.connect() as caller, pytest.raises(psycopg.errors.LockNotAvailable):
        caller.execute("SELECT pg_reaper_sweep('jobs')")
    holder.rollback()
    assert server.value("SELECT pg_reaper_sweep('jobs')") == 1


