"""``interval`` must be shorter than ``lease_duration``: no order of setting them breaks the worker."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from harness.reaper import (
    barriers, overdue, status, wait_for, wait_for_cycles, wait_until_reaped, watch_reaping,
)  # fmt: skip


def test_at_start_a_bad_pair_keeps_the_worker_from_leading_until_a_reload_heals_it(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.interval": "2s", "pg_reaper.lease_duration": "1s"})
    before = wait_for(server, "misconfigured")
    complaint = "pg_reaper.interval (2s) must be shorter than pg_reaper.lease_duration (1s)"
    assert f"WARNING:  {complaint}; the worker does not lead" in server.log()
    assert "HINT:  A leader renews its lease once an interval" in server.log()
    overdue(server, "due")
    wait_until(lambda: status(server), lambda row: row.last_cycle > before.last_cycle, "it to go on living")
    assert barriers(server) == {"due"}
    assert server.value("SELECT pg_reaper_sweep()") == 1
    assert server.log().count(complaint) == 1, "it complains of the same trouble again and again"

    # Another bad pair is another complaint, and no cure.
    server.set(**{"pg_reaper.interval": "1s"})
    wait_until(server.log, lambda log: "pg_reaper.interval (1s) must be shorter" in log, "the new complaint")
    assert status(server).state == "misconfigured"

    server.set(**{"pg_reaper.interval": "100ms"})
    after = wait_for(server, "leader", 10)
    assert after.pid == before.pid
    overdue(server, "due again")
    wait_until_reaped(server, "due again")


def test_at_reload_the_last_valid_pair_stays_and_the_rest_is_taken_up(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "100ms", "pg_reaper.lease_duration": "2s"})
    before = wait_for(server, "leader")
    reapings = watch_reaping(server)
    server.set(**{"pg_reaper.interval": "60s", "pg_reaper.batch_size": "3"})
    complaint = "pg_reaper.interval (60s) must be shorter than pg_reaper.lease_duration (2s)"
    wait_until(
        server.log, lambda log: f"WARNING:  {complaint}; the last valid pair stays in force" in log, "the complaint"
    )
    # At the new interval of a minute this would take several.
    row = wait_for_cycles(server, 5)
    assert (row.pid, row.state, row.term) == (before.pid, "leader", before.term)
    overdue(server, *(f"orphan {n}" for n in range(10)))
    wait_until(lambda: len(reapings()), lambda n: n == 10, "all to be reaped")
    transactions = [reaping.transaction for reaping in reapings()]
    assert max(transactions.count(one) for one in transactions) == 3
    assert server.log().count(complaint) == 1

    # The other half makes the new interval valid.
    server.set(**{"pg_reaper.lease_duration": "120s"})
    wait_until(lambda: settled(server), bool, "the worker to wait for a minute")


def settled(server: Server) -> bool:
    """Whether the worker has ended a cycle and has not begun another in twenty former intervals."""
    return server.value(
        "SELECT clock_timestamp() - last_cycle > interval '2 s' AND state = 'leader' FROM pg_reaper_status()"
    )


def test_a_lease_made_shorter_than_the_interval_is_not_taken_up_either(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    server.set(**{"pg_reaper.lease_duration": "100ms"})
    wait_until(server.log, lambda log: "the last valid pair stays in force" in log, "the complaint")
    row = wait_for_cycles(server, 3)
    assert (row.pid, row.state, row.term) == (before.pid, "leader", before.term)
