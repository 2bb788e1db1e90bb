"""Processes killed in the middle of a sweep, again and again: nothing live is lost, and no row is reaped twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import barriers, lease, live, watch_lease, watch_reaping
from scenery import log
from scenery.barriers import arm_many

ROWS = 400
KILLS = 3

SETTINGS = {
    "pg_reaper.lease_duration": "1s",
    "pg_reaper.batch_size": "5",
    "pg_reaper.log_limit": "1000000",
    "pg_reaper.enabled": "off",
}


def kill_worker(server: Server) -> None:
    _kill(server, "pg_reaper worker")


def kill_launcher(server: Server) -> None:
    _kill(server, "pg_reaper launcher")


def kill_postmaster(server: Server) -> None:
    server.crash()
    server.start()


def _kill(server: Server, kind: str) -> None:
    """Kills a process of the extension, which has the postmaster end and start everything afresh."""
    pid = server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = %s", [kind])
    session = server.connect()
    os.kill(pid, signal.SIGKILL)

    def crashed() -> bool:
        try:
            session.execute("SELECT 1")
        except psycopg.OperationalError:
            return True
        return False

    wait_until(crashed, bool, "the crash")
    wait_until(server.accepts_connections, bool, "the server to be back")


@pytest.mark.parametrize("kill", [kill_worker, kill_launcher, kill_postmaster], ids=lambda f: f.__name__)
def test_killed_in_the_middle_of_a_sweep_it_is_back_and_every_row_is_reaped_once(
    make_server: Callable[..., Server], kill: Callable[[Server], None]
) -> None:
    server = make_server(SETTINGS)
    reapings = watch_reaping(server)
    moves = watch_lease(server)
    server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    arm_many(server, ROWS, "now() - n * interval '1 s'")
    live(server, *(f"live {n}" for n in range(20)))
    server.set(**{"pg_reaper.enabled": "on"})
    for n in range(KILLS):
        reaped = (n + 1) * ROWS // (KILLS + 2)
        left = wait_until(lambda: len(barriers(server)) - 20, lambda left: left <= ROWS - reaped, "the sweep to go on")
        assert left > 0, "the sweep was over before the fault"
        kill(server)
    wait_until(lambda: len(barriers(server)), lambda left: left == 20, "the rest to be reaped", 60)
    assert barriers(server) == {f"live {n}" for n in range(20)}
    orphans = sorted(f"b{n}" for n in range(1, ROWS + 1))
    assert sorted(row.execution_id for row in reapings()) == orphans
    # What was told of was durable: no line comes a second time. (One may be missing: a process that
    # is killed between its commit and its line says nothing.)
    told = [entry.detail for entry in log.warnings(server.log(), "reaped orphaned barrier")]
    names = [line.split('"execution_id":"')[1].split('"')[0] for line in told]
    assert len(names) == len(set(names))
    assert set(names) <= set(orphans)
    assert len(names) >= ROWS - 5 * KILLS
    # No term is issued twice, and whoever acquired has it for good.
    terms = [move.term for move in moves() if move.leader]
    assert terms == sorted(set(terms))
    assert lease(server).term >= KILLS + 1
