"""A task that reports its end while its barrier is being reaped: counted or swept, never both."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import PATIENT, Gate, barriers, overdue, status, wait_for_sweep, wait_until_reaped, waits_for_lock

DECREMENT = (
    "UPDATE pg_barrier_state SET remaining = remaining - 1, last_progress_at = now()"
    " WHERE execution_id = %s RETURNING remaining"
)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Its worker sweeps once ``pg_reaper.enabled`` is turned on."""
    return make_server({**PATIENT, "pg_reaper.enabled": "off"})


def decrement_in_flight(server: Server, execution_id: str) -> psycopg.Connection:
    """A session that has counted down a barrier, and has not committed."""
    session = server.connect(autocommit=False)
    session.execute(DECREMENT, [execution_id])
    return session


def test_a_barrier_locked_by_a_decrement_is_passed_over_and_taken_later(server: Server) -> None:
    overdue(server, "in flight", "second", "third")
    session = decrement_in_flight(server, "in flight")
    server.set(**{"pg_reaper.enabled": "on"})
    # The locked row is the first in the order of deadlines, and the lock outlives the sweep: had
    # the sweep waited for it, nothing would go before lock_timeout (20 s).
    wait_until_reaped(server, "second", "third", timeout=10)
    wait_for_sweep(server)
    assert barriers(server) == {"in flight"}
    assert status(server).errors == 0
    session.commit()
    wait_until_reaped(server, "in flight")


def test_a_barrier_that_the_decrement_in_flight_completes_is_not_swept_as_well(server: Server) -> None:
    overdue(server, "completed", "orphan")
    session = decrement_in_flight(server, "completed")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until_reaped(server, "orphan")
    # remaining = 0: this session fires the callback, and the barrier is its to delete.
    assert session.execute("DELETE FROM pg_barrier_state WHERE execution_id = 'completed'").rowcount == 1
    session.commit()
    wait_for_sweep(server)
    assert status(server).rows_reaped == 1
    assert '"completed"' not in server.log()


def test_a_sweep_by_function_passes_over_a_decrement_in_flight_too(server: Server) -> None:
    overdue(server, "in flight", "second", "third")
    session = decrement_in_flight(server, "in flight")
    with server.connect() as caller:
        caller.execute("SET statement_timeout = '10s'")  # or a sweep that waits would hang the test
        assert caller.execute("SELECT pg_reaper_sweep()").fetchone() == (2,)
        session.rollback()
        assert caller.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)
    assert barriers(server) == set()


def test_a_decrement_that_meets_the_batch_finds_no_row_and_is_not_counted(server: Server) -> None:
    gate = Gate(server, "gate")
    # The batch has deleted the first, and is held up before the second.
    overdue(server, "met", "gate")
    server.set(**{"pg_reaper.enabled": "on"})
    gate.wait_for_arrival()
    session = server.connect()
    pid = session.info.backend_pid
    with ThreadPoolExecutor(1) as pool:
        decrement = pool.submit(lambda: session.execute(DECREMENT, ["met"]).fetchall())
        wait_until(lambda: decrement.done() or waits_for_lock(server, pid), bool, "the decrement to meet the batch")
        gate.open()
        assert decrement.result(timeout=30) == []
    wait_until(server.log, lambda log: 'barrier "met"' in log, "the orphan in the log")
    assert 'barrier "met" (organization "", remaining 1)' in server.log()
