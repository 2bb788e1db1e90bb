"""pg_ctl stop, fast and smart, whatever the worker does: it ends promptly, with the lease released."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, barriers, lease, live, overdue, wait_for, wait_until_reaped, waits_for_lock
from scenery.barriers import arm_many, count
from scenery.busy import UNHURRIED, Brake

ROOM = {**UNHURRIED, "max_prepared_transactions": "5", "deadlock_timeout": "1h"}


def in_a_function(server: Server) -> None:
    """The worker is deep in a function of the table."""
    brake = Brake(server)
    overdue(server, "due")
    brake.wait_for_arrival()


def in_a_sweep_of_many_batches(server: Server) -> None:
    """The worker is in a sweep that would last for minutes."""
    server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    server.set(**{"pg_reaper.batch_size": "3"})
    arm_many(server, 20_000, "now() - n * interval '1 s'")
    wait_until(lambda: count(server), lambda n: n < 20_000, "the sweep to be under way")


def waiting_for_the_table(server: Server) -> None:
    """The worker waits for a lock that nobody's session holds: a smart shutdown waits for sessions."""
    pid = wait_for(server, "leader").pid
    with server.connect(autocommit=False) as session:
        session.execute("LOCK TABLE pg_barrier_state")
        session.execute("PREPARE TRANSACTION 'holder'")
    wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the table")


def waiting_for_a_row(server: Server) -> None:
    """The worker waits for a row that its trigger wants to change."""
    pid = wait_for(server, "leader").pid
    server.execute(
        "CREATE TABLE tally (n int)",
        "INSERT INTO tally VALUES (0)",
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE public.tally SET n = n + 1; RETURN OLD; END $$",
        "CREATE TRIGGER tally BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION tally()",
    )
    with server.connect(autocommit=False) as session:
        session.execute("UPDATE tally SET n = 0")
        session.execute("PREPARE TRANSACTION 'holder'")
    overdue(server, "due")
    wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the row")


def at_rest(server: Server) -> None:
    """The worker waits for its next cycle."""


OCCUPATIONS = [at_rest, in_a_function, in_a_sweep_of_many_batches, waiting_for_the_table, waiting_for_a_row]


@pytest.mark.parametrize("mode", ["fast", "smart"])
@pytest.mark.parametrize("occupied", OCCUPATIONS, ids=lambda f: f.__name__)
def test_the_server_stops_promptly_and_nothing_is_lost(
    make_server: Callable[..., Server], occupied: Callable[[Server], None], mode: str
) -> None:
    server = make_server(ROOM)
    before = wait_for(server, "leader")
    live(server, "live")
    occupied(server)
    server.stop(mode, timeout=AT_ONCE)
    assert f"pg_reaper released term {before.term}: the worker is leaving" in server.log()
    assert "was terminated by signal" not in server.log()
    # From now on whoever tidies up is let through.
    server.configure({"deadlock_timeout": "100ms"})
    server.start()
    if "holder" in {name for (name,) in server.query("SELECT gid FROM pg_prepared_xacts")}:
        server.execute("ROLLBACK PREPARED 'holder'")
    server.execute("DROP TABLE IF EXISTS brake, tally", "DROP TRIGGER IF EXISTS slow ON pg_barrier_state")
    server.execute("DROP TRIGGER IF EXISTS brake ON pg_barrier_state", "DROP TRIGGER IF EXISTS tally ON pg_barrier_state")
    # The lease was given back: nobody waits until it has run out.
    wait_for(server, "leader")
    assert lease(server).term == before.term + 1
    wait_until_reaped(server, "due")
    assert "live" in barriers(server)


def test_a_smart_shutdown_that_waits_for_a_session_leaves_the_worker_at_work(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.lease_duration": "60s"})
    wait_for(server, "leader")
    session = server.connect()
    process = server._running()
    process.terminate()
    wait_until(server.log, lambda text: "received smart shutdown request" in text, "the shutdown to begin")
    session.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('due', 1, now() - interval '1 h', now() - interval '1 s')"
    )
    left = lambda: session.execute("SELECT count(*) FROM pg_barrier_state").fetchone()  # noqa: E731
    wait_until(left, lambda row: row == (0,), "the barrier to be reaped")
    session.close()
    process.wait(AT_ONCE)
    assert "pg_reaper released term 1: the worker is leaving" in server.log()
