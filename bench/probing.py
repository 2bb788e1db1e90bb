"""What a worker's look at a table costs that has nothing for it: buffers and CPU time, each time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Spread, spread
from bench.processes import cpu_seconds
from bench.stage import Stage

# Buffers of the table and of all its indexes, hit or read, as PostgreSQL counts them.
BUFFERS = """
SELECT s.pid, s.last_sweep, t.heap_blks_hit + t.heap_blks_read + t.idx_blks_hit + t.idx_blks_read
FROM pg_reaper_status() AS s, pg_statio_user_tables AS t
WHERE s.database = current_database() AND t.relid = %s::regclass
"""
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Probes:
    """Buffers for a probe of the table, and CPU milliseconds for a whole cycle of the worker."""

    buffers: Spread
    cycle_ms: Spread


def probes(stage: Stage, table: str, seconds: float, skipped: int = 2) -> Probes:
    """Watches a worker that is loose; the first sweeps do not count."""
    cpu: list[tuple[int, float]] = []
    buffers: list[tuple[int, float]] = []
    sweeps, last, before = 0, None, None
    ends = time.monotonic() + seconds
    with stage.session() as session:
        while time.monotonic() < ends:
            pid, sweep, now = session.execute(BUFFERS, [table]).fetchone()
            if sweep != last:
                sweeps, last = sweeps + 1, sweep
                if sweeps > skipped:
                    cpu.append((sweeps, cpu_seconds(pid) * 1000))
            # A process reports its counts once a second at most, those of several sweeps in one.
            if now != before and sweeps > skipped:
                buffers.append((sweeps, now))
            before = now
            time.sleep(POLL_SECONDS)
    return Probes(by_the_sweep(buffers), by_the_sweep(cpu))


def by_the_sweep(totals: Sequence[tuple[int, float]]) -> Spread:
    """Sweeps until then with the total at each time: what one sweep added, between two times."""
    pairs = [(one, other) for one, other in zip(totals, totals[1:], strict=False) if other[0] > one[0]]
    if not pairs:
        raise RuntimeError(f"the worker was seen to sweep {len(totals)} times only")
    return spread([(other[1] - one[1]) / (other[0] - one[0]) for one, other in pairs])
