"""The worker under measurement: begun afresh, let loose, watched, and held back again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness import wait_until
from harness.reaper import status

from bench.stage import FEW, Stage

# From shared memory: it touches no table, whatever state that is in.
COUNTER = "SELECT pid, rows_reaped FROM pg_reaper_status() WHERE database = current_database()"
POLL_SECONDS = 0.002
PATIENCE = 600.0


@dataclass
class Drain:
    """How a backlog went: seconds since the worker was let loose, and rows gone by then."""

    rows: int
    seconds: float = 0.0
    progress: list[tuple[float, int]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def afresh(stage: Stage) -> None:
    """A new worker, off: it knows no table, as a new session does not."""
    stage.set(**{"pg_reaper.enabled": "off"})
    stage.server.execute("SELECT pg_reaper_stop()")
    wait_until(lambda: stage.server.worker_pids(), lambda pids: not pids, "the worker to leave")
    stage.server.execute("SELECT pg_reaper_start()")
    wait_until(
        lambda: status(stage.server), lambda row: row is not None and row.state == "disabled", "a worker that is off"
    )


def warm(stage: Stage, table: str) -> None:
    """A new worker, off, that has swept the other table, as one in life has, but has not seen this one."""
    switch = (
        "SELECT pg_reaper_alter_policy(policy, enabled => %s) FROM pg_reaper_policies WHERE relation = %s::regclass"
    )
    with stage.session() as session:
        session.execute(switch, [False, table])
        afresh(stage)
        drain(stage, FEW)
        session.execute(switch, [True, table])


@contextmanager
def loose(stage: Stage) -> Iterator[float]:
    """Lets the worker loose for as long as the block runs; gives the time at which it was."""
    with stage.session() as session:
        session.execute("ALTER SYSTEM SET pg_reaper.enabled = on")
        began = time.perf_counter()
        session.execute("SELECT pg_reload_conf()")
    try:
        yield began
    finally:
        stage.set(**{"pg_reaper.enabled": "off"})
        wait_until(lambda: status(stage.server), lambda row: row.state != "leader", "the worker to be off")


def drain(
    stage: Stage, rows: int, patience: float = PATIENCE, afterwards: Callable[[], None] = lambda: None
) -> Drain:
    """Lets the worker loose on a backlog until so many rows are gone; an error if they are not in time.
    ``afterwards`` is called while it still is loose."""
    seen = Drain(rows)
    with stage.session() as session:
        pid, before = session.execute(COUNTER).fetchone()
        with loose(stage) as began:
            while True:
                now_pid, counted = session.execute(COUNTER).fetchone() or (None, 0)
                elapsed = time.perf_counter() - began
                if now_pid != pid:
                    raise RuntimeError(f"the worker ended in the middle: {stage.server.log()[-1000:]}")
                gone = counted - before
                if not seen.progress or gone != seen.progress[-1][1]:
                    seen.progress.append((elapsed, gone))
                if gone >= rows:
                    seen.seconds = elapsed
                    afterwards()
                    return seen
                if elapsed > patience:
                    last = status(stage.server).last_error
                    raise RuntimeError(f"{gone} of {rows} rows reaped in {elapsed:.0f} s; last error: {last or 'none'}")
                time.sleep(POLL_SECONDS)
