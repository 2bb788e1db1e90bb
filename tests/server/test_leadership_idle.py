"""What a worker with nothing to do writes."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from harness.reaper import status, wait_for

# Nothing else writes: no autovacuum, no checkpoint, and at this level no snapshots for standbys.
QUIET = {
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "pg_reaper.interval": "20ms",
}
WRITTEN = "SELECT pg_current_wal_insert_lsn()::text, pg_snapshot_xmax(pg_current_snapshot())::text"


def written_in_cycles(server: Server, cycles: int) -> bool:
    """Whether anything was written, WAL or transaction ids, while the worker turned some cycles."""
    # One session throughout: a new one writes hints on the catalogue.
    with server.connect() as session:
        session.execute("SELECT last_cycle FROM pg_reaper_status()")
        before = session.execute(WRITTEN).fetchone()
        last = None
        for _ in range(cycles):
            last = wait_until(
                lambda: session.execute("SELECT last_cycle FROM pg_reaper_status()").fetchone(),
                lambda row, last=last: row != last,
                "a cycle",
            )
        return session.execute(WRITTEN).fetchone() != before


def test_an_idle_worker_that_leads_by_a_session_lock_writes_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server({**QUIET, "pg_reaper.leadership": "advisory"})
    wait_for(server, "leader")
    # The first cycles settle hints on the catalogue; a cycle that writes by itself never stops.
    wait_until(lambda: written_in_cycles(server, 30), lambda written: not written, "30 cycles without a write")
    assert status(server).state == "leader"


def test_an_idle_leader_by_lease_is_seen_to_write_by_the_same_measure(make_server: Callable[..., Server]) -> None:
    server = make_server(QUIET)
    wait_for(server, "leader")
    assert all(written_in_cycles(server, 5) for _ in range(5))
