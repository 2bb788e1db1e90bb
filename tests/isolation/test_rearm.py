"""A barrier re-armed while it is about to be reaped: never a live row (invariant 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import Server, wait_until
from harness.reaper import PATIENT, Gate, barriers, overdue, status, wait_for, wait_until_reaped

# A worker leaves a table after one interval, and a second at most, and reads anew what is due when
# it comes back. These tests want it to go on with what it has read, so the interval is long.
UNHURRIED = {**PATIENT, "pg_reaper.interval": "10s", "pg_reaper.enabled": "off"}

REARM = "UPDATE pg_barrier_state SET expires_at = now() + interval '1 hour' WHERE execution_id = %s"


def wait_for_first_sweep(server: Server) -> None:
    """Waits until the first sweep of a worker that was disabled before is over."""
    wait_until(lambda: status(server).last_sweep, bool, "the sweep to end")


class Sweep:
    """A sweep under way, by the worker or by a session of its own."""

    def __init__(self, server: Server, by: str) -> None:
        self.server = server
        self.by = by
        self.pool = ThreadPoolExecutor(2)

    def start(self) -> None:
        if self.by == "function":
            self.call = self.pool.submit(self.server.value, "SELECT pg_reaper_sweep()")
        else:
            self.server.set(**{"pg_reaper.enabled": "on"})

    def finish(self) -> None:
        if self.by == "function":
            self.call.result(timeout=30)
        else:
            wait_for_first_sweep(self.server)

    def meanwhile(self, statement: str, execution_id: str) -> int:
        """Runs an update while the sweep is held up; the number of rows it says it changed."""
        return self.server.connect().execute(statement, [execution_id]).rowcount


@pytest.fixture(params=["worker", "function"])
def make_sweep(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> Iterator[Callable[..., Sweep]]:
    """A server to be swept by its worker, and one by ``pg_reaper_sweep()`` alone."""
    sweeps = []

    def make(**settings: str) -> Sweep:
        ours = {f"pg_reaper.{name}": value for name, value in settings.items()}
        server = make_server({**UNHURRIED, **ours})
        wait_for(server, "disabled")
        sweeps.append(Sweep(server, request.param))
        return sweeps[0]

    yield make
    for sweep in sweeps:
        sweep.pool.shutdown()


def test_a_barrier_re_armed_before_its_batch_survives(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep(batch_size="1")
    server = sweep.server
    gate = Gate(server, "gate")
    # Both are read as due before the first batch; the second one's batch comes after the gate.
    overdue(server, "gate", "re-armed", "left alone")
    sweep.start()
    gate.wait_for_arrival()
    assert sweep.meanwhile(REARM, "re-armed") == 1
    gate.open()
    wait_until_reaped(server, "gate", "left alone")
    sweep.finish()
    assert barriers(server) == {"re-armed"}


def test_a_barrier_that_moved_on_before_its_batch_survives_the_stuck_timeout(
    make_sweep: Callable[..., Sweep],
) -> None:
    sweep = make_sweep(batch_size="1", stuck_timeout="60s")
    server = sweep.server
    gate = Gate(server, "gate")
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, expires_at, last_progress_at)"
        " SELECT id, 2, now() + interval '1 hour', now() - interval '10 min'"
        " FROM unnest(ARRAY['gate', 'moves on', 'stands still']) AS u (id)"
    )
    sweep.start()
    gate.wait_for_arrival()
    decrement = (
        "UPDATE pg_barrier_state SET remaining = remaining - 1, last_progress_at = now() WHERE execution_id = %s"
    )
    assert sweep.meanwhile(decrement, "moves on") == 1
    gate.open()
    wait_until_reaped(server, "gate", "stands still")
    sweep.finish()
    assert barriers(server) == {"moves on"}


def test_a_re_arm_that_meets_the_batch_holds_or_is_told_that_the_row_is_gone(
    make_sweep: Callable[..., Sweep],
) -> None:
    sweep = make_sweep(batch_size="1000")
    server = sweep.server
    gate = Gate(server, "gate")
    # One batch. The gate stands before its first row, so the second is not deleted yet.
    overdue(server, "gate", "re-armed")
    sweep.start()
    gate.wait_for_arrival()
    rearm = sweep.pool.submit(sweep.meanwhile, REARM, "re-armed")
    blocked = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE pg_barrier_state%%'"
    )
    wait_until(lambda: rearm.done() or server.value(blocked) == 1, bool, "the re-arm to go through or to wait")
    gate.open()
    changed = rearm.result(timeout=30)
    sweep.finish()
    # Whoever is told that a barrier is armed may rely on it.
    assert barriers(server) == ({"re-armed"} if changed else set())


def test_a_live_row_in_the_place_of_one_that_was_due_survives(make_server: Callable[..., Server]) -> None:
    # What a pass reads ahead is where rows lie. By the time of the batch the place may be another
    # row's: this row's barrier was re-armed, VACUUM made room, and a new barrier took it.
    server = make_server({**UNHURRIED, "pg_reaper.batch_size": "1", "autovacuum": "off"})
    wait_for(server, "disabled")
    first, second = Gate(server, "gate 1"), Gate(server, "gate 2")
    # Wide rows put the last one on a page far from the others: VACUUM passes over a page that a
    # batch is at, and those that a scan is about to read.
    arm = (
        "INSERT INTO pg_barrier_state (execution_id, organization_id, remaining, created_at, expires_at)"
        " SELECT id, (SELECT string_agg(md5(id || n), '') FROM generate_series(1, 50) AS n), 1,"
        " now() - interval '1 day', now() + make_interval(secs => due)"
        " FROM ROWS FROM (unnest(%s::text[]), unnest(%s::integer[])) AS rows (id, due)"
    )
    between = [str(n) for n in range(400)]
    # One deadline, and more rows than a batch: those are read ahead.
    rows = [("gate 1", -1), ("gate 2", -1), *((id, 3600) for id in between), ("moves away", -1)]
    server.query(arm, [list(column) for column in zip(*rows)])
    place = "SELECT ctid::text FROM pg_barrier_state WHERE execution_id = %s"
    due = server.value(place, ["moves away"])
    server.set(**{"pg_reaper.enabled": "on"})
    first.wait_for_arrival()
    assert server.connect().execute(REARM, ["moves away"]).rowcount == 1
    first.open()
    # The second batch began after the re-arm, so it does not keep VACUUM from removing the old row.
    second.wait_for_arrival()
    server.execute("VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) pg_barrier_state")
    server.query(arm, [["moved in"], [3600]])
    assert server.value(place, ["moved in"]) == due, "the test did not arrange what it wants to see"
    second.open()
    wait_until_reaped(server, "gate 2")
    wait_for_first_sweep(server)
    assert barriers(server) == {*between, "moves away", "moved in"}
