"""Sweeps at the same time reap disjoint rows, so ``pg_reaper_sweep()`` needs no lease."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness import Server
from harness.reaper import PATIENT, Gate, barriers, overdue, status, wait_for, wait_for_sweep, wait_until_reaped

ORPHANS = [f"orphan {n}" for n in range(100)]


@pytest.fixture
def idle_server(make_server: Callable[..., Server]) -> Server:
    """Its worker does not sweep."""
    return make_server({**PATIENT, "pg_reaper.enabled": "off", "pg_reaper.batch_size": "10"})


def sweep(session: psycopg.Connection, max_rows: int | None = None) -> int:
    # A sweep that waits for another one's rows must fail, and not hang the test.
    session.execute("SET statement_timeout = '15s'")
    return session.execute("SELECT pg_reaper_sweep(max_rows => %s)", [max_rows]).fetchone()[0]


def test_two_sweeps_at_once_reap_every_row_once(idle_server: Server) -> None:
    gate = Gate(idle_server, "gate")
    overdue(idle_server, "gate", *ORPHANS)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sweep, idle_server.connect())
        # Held up in its first batch. What that has not come to yet is anybody's.
        gate.wait_for_arrival()
        second = sweep(idle_server.connect())
        assert 90 <= second <= 100
        gate.open()
        assert first.result(timeout=30) + second == 101
    assert barriers(idle_server) == set()


def test_what_a_sweep_rolls_back_is_there_for_the_next(idle_server: Server) -> None:
    overdue(idle_server, *ORPHANS)
    first = idle_server.connect(autocommit=False)
    assert sweep(first, max_rows=30) == 30
    assert sweep(idle_server.connect()) == 70
    first.rollback()
    assert sweep(idle_server.connect()) == 30
    assert barriers(idle_server) == set()


def test_the_worker_passes_over_what_a_sweep_by_function_has_taken(make_server: Callable[..., Server]) -> None:
    server = make_server({**PATIENT, "pg_reaper.enabled": "off"})
    overdue(server, *ORPHANS)
    caller = server.connect(autocommit=False)
    assert sweep(caller, max_rows=30) == 30
    server.set(**{"pg_reaper.enabled": "on"})
    wait_for(server, "leader")
    wait_until_reaped(server, *ORPHANS[30:], timeout=10)
    wait_for_sweep(server)
    assert status(server).rows_reaped == 70
    caller.commit()
    wait_for_sweep(server)
    assert status(server).rows_reaped == 70
    assert barriers(server) == set()


def test_a_sweep_by_function_takes_what_the_worker_is_not_at(make_server: Callable[..., Server]) -> None:
    server = make_server({**PATIENT, "pg_reaper.batch_size": "10"})
    wait_for(server, "leader")
    gate = Gate(server, "gate")
    overdue(server, "gate", *ORPHANS)
    gate.wait_for_arrival()
    by_function = sweep(server.connect())
    assert 90 <= by_function <= 100
    gate.open()
    wait_until_reaped(server, "gate")
    wait_for_sweep(server)
    assert status(server).rows_reaped == 101 - by_function


def caller_with_an_old_snapshot(server: Server) -> psycopg.Connection:
    """A caller at REPEATABLE READ who does not see that one of two overdue barriers was re-armed."""
    overdue(server, "re-armed", "orphan")
    caller = server.connect(autocommit=False)
    caller.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    caller.execute("SELECT FROM pg_barrier_state")
    server.execute("UPDATE pg_barrier_state SET expires_at = now() + interval '1 hour' WHERE execution_id = 're-armed'")
    return caller


def test_a_caller_with_an_old_snapshot_is_warned_and_reaps_no_live_row(idle_server: Server) -> None:
    caller = caller_with_an_old_snapshot(idle_server)
    warnings: list[str | None] = []
    caller.add_notice_handler(lambda notice: warnings.append(notice.sqlstate))
    assert sweep(caller) == 0
    caller.commit()
    assert warnings == ["40001"]
    assert sweep(idle_server.connect()) == 1
    assert barriers(idle_server) == {"re-armed"}


def test_a_caller_with_an_old_snapshot_who_names_the_table_gets_40001(idle_server: Server) -> None:
    caller = caller_with_an_old_snapshot(idle_server)
    with pytest.raises(psycopg.errors.SerializationFailure):
        caller.execute("SELECT pg_reaper_sweep('pg_barrier_state')")
    caller.rollback()
    assert barriers(idle_server) == {"re-armed", "orphan"}
