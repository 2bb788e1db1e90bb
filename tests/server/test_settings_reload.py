"""Settings that are changed while the worker runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, Reaping, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped, watch_reaping,
)  # fmt: skip

ORPHANS = [f"orphan {n:02}" for n in range(50)]


def batches(reapings: list[Reaping]) -> list[int]:
    """How many rows each transaction deleted."""
    return list(Counter(reaping.transaction for reaping in reapings).values())


def at_rest(server: Server) -> bool:
    """Whether the worker has turned no cycle for ten former intervals."""
    return server.value("SELECT clock_timestamp() - last_cycle > interval '1 s' FROM pg_reaper_status()")


def restart_worker(server: Server) -> None:
    """Settings of a database hold for sessions that begin later; so for the worker's next start."""
    pid = status(server).pid
    server.execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(
        lambda: status(server),
        lambda row: row.state == "leader" and row.pid not in (None, pid),
        "the worker to lead again",
    )


def test_a_shorter_interval_is_taken_up_at_once(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.lease_duration": "1h"})
    before = wait_for(server, "leader")
    server.set(**{"pg_reaper.interval": "10min"})
    wait_until(lambda: at_rest(server), bool, "the worker to wait for ten minutes")
    overdue(server, "due")
    server.set(**{"pg_reaper.interval": "50ms"})
    wait_until_reaped(server, "due")
    row = status(server)
    assert (row.pid, row.term) == (before.pid, before.term)


def test_a_smaller_batch_size_is_taken_up_by_a_reload(server: Server) -> None:
    wait_for(server, "leader")
    reapings = watch_reaping(server)
    overdue(server, *ORPHANS)
    wait_until_reaped(server, *ORPHANS)
    assert batches(reapings()) == [50]
    server.set(**{"pg_reaper.batch_size": "7"})
    wait_for_cycles(server)
    overdue(server, *ORPHANS)
    wait_until_reaped(server, *ORPHANS)
    assert batches(reapings())[1:] == [7] * 7 + [1]


def test_the_log_limit_is_taken_up_by_a_reload_and_the_rest_is_counted(server: Server) -> None:
    wait_for(server, "leader")
    server.set(**{"pg_reaper.log_limit": "3"})
    wait_for_cycles(server)
    mark = server.log_mark()
    overdue(server, *ORPHANS)
    log = wait_until(lambda: server.log_since(mark), lambda log: "in this pass" in log, "the line with the count")
    assert log.count("WARNING:  reaped orphaned barrier ") == 3
    assert "reaped 47 more orphaned barriers of public.pg_barrier_state, 50 in this pass" in log


def test_off_releases_the_lease_and_on_takes_it_again(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.lease_duration": "60s"})
    before = wait_for(server, "leader")
    server.set(**{"pg_reaper.enabled": "off"})
    off = wait_for(server, "disabled", AT_ONCE)
    assert (off.pid, off.term, lease(server).leader) == (before.pid, None, "")
    assert "pg_reaper released term 1: pg_reaper.enabled is off" in server.log()
    overdue(server, "due")
    wait_for_cycles(server, 5)
    assert barriers(server) == {"due"}
    server.set(**{"pg_reaper.enabled": "on"})
    # The lease has not run out: it was free to take.
    on = wait_for(server, "leader", timeout=15)
    wait_until_reaped(server, "due")
    assert (on.pid, on.leader, on.term) == (before.pid, before.leader, before.term + 1)


def test_a_setting_of_the_database_reaches_the_worker(server: Server) -> None:
    wait_for(server, "leader")
    reapings = watch_reaping(server)
    server.execute(
        "ALTER DATABASE postgres SET pg_reaper.batch_size = 20",
        "ALTER DATABASE postgres SET pg_reaper.log_limit = 2",
    )
    restart_worker(server)
    mark = server.log_mark()
    overdue(server, *ORPHANS)
    log = wait_until(lambda: server.log_since(mark), lambda log: "in this pass" in log, "the line with the count")
    assert batches(reapings()) == [20, 20, 10]
    assert "reaped 48 more orphaned barriers" in log


def test_the_stuck_timeout_of_the_database_reaches_the_worker(server: Server) -> None:
    wait_for(server, "leader")
    server.execute("ALTER DATABASE postgres SET pg_reaper.stuck_timeout = '1h'")
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, expires_at, last_progress_at) VALUES"
        " ('stands still', 1, now() + interval '1 day', now() - interval '2 h'),"
        " ('moves', 1, now() + interval '1 day', now() - interval '10 min')"
    )
    restart_worker(server)
    wait_until_reaped(server, "stands still")
    assert barriers(server) == {"moves"}
