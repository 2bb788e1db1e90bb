"""A worker that is told to end, cancelled or killed: it obeys at once, and comes back by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, PATIENT, Gate, adoptable, barriers, lease, live, overdue, status, status_if_any, wait_for,
    wait_for_cycles, wait_until_reaped, waits_for_lock, watch_lease,
)  # fmt: skip


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server(PATIENT)


def busy_in_a_statement(server: Server) -> Callable[[], None]:
    """Has the worker sit in a function of an adopted table; what is returned ends that."""
    adoptable(server, "slow")
    server.execute(
        "CREATE TABLE slowly ()",
        "INSERT INTO slowly DEFAULT VALUES",
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM public.slowly) THEN PERFORM pg_sleep(60); END IF; RETURN OLD; END $$",
        "CREATE TRIGGER take_long BEFORE DELETE ON slow FOR EACH ROW EXECUTE FUNCTION take_long()",
    )
    overdue(server, "slow", table="slow")
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: server.value(asleep), lambda n: n == 1, "the worker to be in the function")
    return lambda: server.execute("DELETE FROM slowly")


def waiting_for_the_table(server: Server) -> Callable[[], None]:
    """Has the worker wait for a table, which it would do for 20 s; what is returned ends that."""
    blocker = server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_barrier_state")
    pid = status(server).pid
    wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the table")
    return blocker.rollback


def waiting_for_the_policies(server: Server) -> Callable[[], None]:
    """Has the worker wait for the list of what is watched; what is returned ends that."""
    blocker = server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_reaper_policy")
    pid = status(server).pid
    wait_until(lambda: waits_for_lock(server, pid), bool, "the worker to wait for the policies")
    return blocker.rollback


def held_up_in_a_batch(server: Server) -> Callable[[], None]:
    """Has the worker wait for a lock in the middle of a batch; what is returned ends that."""
    gate = Gate(server, "gate")
    overdue(server, "gate")
    gate.wait_for_arrival()
    return gate.open


def at_rest(server: Server) -> Callable[[], None]:
    """The worker waits for its next cycle."""
    return lambda: None


OCCUPATIONS = [
    at_rest, busy_in_a_statement, waiting_for_the_table, waiting_for_the_policies, held_up_in_a_batch,
]  # fmt: skip
each_occupation = pytest.mark.parametrize("occupied", OCCUPATIONS, ids=lambda f: f.__name__)


@each_occupation
def test_a_terminated_worker_is_back_and_the_lease_was_released(
    server: Server, occupied: Callable[[Server], Callable[[], None]]
) -> None:
    before = wait_for(server, "leader")
    moves = watch_lease(server)
    end = occupied(server)
    server.execute(f"SELECT pg_terminate_backend({before.pid})")
    wait_until(server.worker_pids, lambda pids: before.pid not in pids, "the worker to leave", AT_ONCE)
    assert ("", before.term) == moves()[0][:2]
    assert "pg_reaper released term 1: the worker is leaving" in server.log()
    end()
    after = wait_for(server, "leader")
    assert after.pid != before.pid
    assert after.leader != before.leader
    assert after.term == before.term + 1
    overdue(server, "afterwards")
    wait_until_reaped(server, "afterwards")


@each_occupation
def test_a_cancelled_worker_goes_on_as_the_same_process_and_leader(
    server: Server, occupied: Callable[[Server], Callable[[], None]]
) -> None:
    before = wait_for(server, "leader")
    end = occupied(server)
    server.execute(f"SELECT pg_cancel_backend({before.pid})")
    if occupied is waiting_for_the_policies:
        wait_until(lambda: status(server).errors, bool, "the cancellation to be told", AT_ONCE)
        assert "SQLSTATE 57014" in status(server).last_error
    elif occupied is not at_rest:
        # Whoever waits for a lock of the worker's cancels it so too: to give way is no error.
        line = "was cancelled to make way for somebody else"
        wait_until(server.log, lambda text: line in text, "the cancellation to be told", AT_ONCE)
        assert status(server).errors == 0
    end()
    overdue(server, "afterwards")
    wait_until_reaped(server, "afterwards")
    after = wait_for(server, "leader")
    assert (after.pid, after.leader, after.term) == (before.pid, before.leader, before.term)


def test_sigterm_by_hand_is_the_same_as_pg_terminate_backend(server: Server) -> None:
    before = wait_for(server, "leader")
    os.kill(before.pid, signal.SIGTERM)
    after = wait_until(lambda: status(server), lambda row: row.pid not in (None, before.pid), "another worker")
    wait_until(lambda: lease(server), lambda row: row[:2] == (after.leader, before.term + 1), "its term")


@each_occupation
def test_the_server_stops_promptly_whatever_the_worker_does(
    server: Server, occupied: Callable[[Server], Callable[[], None]]
) -> None:
    wait_for(server, "leader")
    occupied(server)
    server.stop("fast", timeout=AT_ONCE)
    assert "pg_reaper released term 1: the worker is leaving" in server.log()


def test_a_worker_killed_in_a_batch_is_back_after_the_crash_and_no_live_row_is_lost(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.lease_duration": "4s", "restart_after_crash": "on"})
    before = wait_for(server, "leader")
    gate = Gate(server, "gate")
    live(server, "live")
    overdue(server, "in the batch", "gate")
    gate.wait_for_arrival()
    os.kill(before.pid, signal.SIGKILL)

    def answer() -> Any:
        try:
            return status_if_any(server)
        except psycopg.OperationalError:
            return None

    # Nobody released the lease: it is taken when it has run out.
    # Until the postmaster has noticed, the old one is told of still.
    after = wait_until(
        answer,
        lambda row: row is not None and row.state == "leader" and row.pid != before.pid,
        "the worker to lead again",
    )
    assert after.term == before.term + 1
    wait_until_reaped(server, "in the batch", "gate")
    assert barriers(server) == {"live"}


def test_after_a_crash_of_the_server_the_worker_is_back_and_terms_go_on(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    live(server, "live")
    server.crash()
    server.start()
    overdue(server, "due")
    wait_until_reaped(server, "due")
    assert lease(server).term == before.term + 1
    assert barriers(server) == {"live"}


def test_a_worker_terminated_again_and_again_comes_back_each_time(server: Server) -> None:
    leaders = set()
    for _ in range(3):
        row = wait_for(server, "leader")
        leaders.add(row.leader)
        server.execute(f"SELECT pg_terminate_backend({row.pid})")
        wait_until(server.worker_pids, lambda pids, pid=row.pid: pid not in pids, "the worker to leave", AT_ONCE)
    assert len(leaders) == 3
    assert wait_for(server, "leader").term == 4


def test_a_missing_synchronous_standby_hangs_neither_the_sweep_nor_the_way_out(server: Server) -> None:
    before = wait_for(server, "leader")
    moves = watch_lease(server)
    session = server.connect(options="-c synchronous_commit=local")
    server.set(synchronous_standby_names="nobody")
    insert = (
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('due', 1, now() - interval '1 h', now() - interval '1 s')"
    )
    session.execute(insert)
    wait_until_reaped(server, "due")
    session.execute("SELECT pg_terminate_backend(%s)", [before.pid])
    wait_until(server.worker_pids, lambda pids: before.pid not in pids, "the worker to leave", AT_ONCE)
    assert ("", before.term) == moves()[0][:2]
    wait_for(server, "leader")
    session.execute(insert)
    wait_until_reaped(server, "due")


def test_counters_outlive_a_worker(server: Server) -> None:
    before = wait_for(server, "leader")
    overdue(server, "one", "two")
    wait_until_reaped(server, "one", "two")
    wait_for_cycles(server)
    server.execute(f"SELECT pg_terminate_backend({before.pid})")
    after = wait_until(
        lambda: status(server), lambda row: row.state == "leader" and row.pid != before.pid, "another worker"
    )
    assert after.rows_reaped == 2
    assert after.started_at > before.started_at
