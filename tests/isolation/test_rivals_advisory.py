"""Several workers in one database, with ``leadership = advisory``: a session lock is the lease."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, PATIENT, adoptable, barriers, lease, overdue, status, wait_until_reaped
from harness.twins import ROOM, by_pid, leaders, start_twins, wait_for_leader

# Who holds the leadership lock: on the extension's own object, with a sub-id of its own.
HOLDERS = (
    "SELECT l.pid FROM pg_locks l JOIN pg_extension e ON e.oid = l.objid AND e.extname = 'pg_reaper'"
    " WHERE l.locktype = 'object' AND l.classid = 'pg_extension'::regclass"
    " AND l.mode = 'ExclusiveLock' AND l.granted AND l.objsubid <> 0"
)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Its worker has three rivals; they race once ``pg_reaper.enabled`` is turned on."""
    server = make_server(
        {**PATIENT, **ROOM, "pg_reaper.leadership": "advisory", "pg_reaper.quarantine_limit": "0",
         "pg_reaper.enabled": "off"}
    )  # fmt: skip
    start_twins(server, 3)
    # Notes with each row who deleted it, and who held the leadership lock then.
    server.execute(
        "CREATE TABLE reapings (execution_id text, pid integer, holders integer[])",
        "CREATE FUNCTION note_reaping() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO public.reapings SELECT OLD.execution_id, pg_backend_pid(), ARRAY({HOLDERS});"
        " RETURN NULL; END $$",
        "CREATE TRIGGER note_reaping AFTER DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION note_reaping()",
    )
    return server


def reapers(server: Server) -> list[int]:
    """Who reaped, the first row first, having made sure that each held the lock."""
    rows = server.query("SELECT execution_id, pid, holders FROM reapings ORDER BY execution_id")
    assert all(holders == [pid] for _, pid, holders in rows), rows
    return [pid for _, pid, _ in rows]


def test_one_rival_leads_and_hands_the_lock_over_when_it_is_terminated(server: Server) -> None:
    server.set(**{"pg_reaper.enabled": "on"})
    expected = []
    for turn in range(4):
        leader = wait_for_leader(server, other_than=expected[-1] if expected else 0, timeout=AT_ONCE)
        wait_until(
            lambda: {row.state for row in by_pid(server).values()}, lambda told: "disabled" not in told, "a race"
        )
        assert server.query(HOLDERS) == [(leader,)]
        overdue(server, f"orphan {turn}")
        wait_until_reaped(server, f"orphan {turn}")
        expected.append(leader)
        os.kill(leader, signal.SIGTERM)
    assert reapers(server) == expected
    # The row is another kind of leadership's; a term would be a lie.
    assert lease(server)[:2] == ("", 0)


def cursed_barrier(server: Server) -> None:
    """An adopted table with an overdue barrier whose deletion raises an error."""
    adoptable(server, "cursed")
    server.execute(
        "CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'cursed'; END $$",
        "CREATE TRIGGER curse BEFORE DELETE ON cursed FOR EACH ROW EXECUTE FUNCTION curse()",
        "INSERT INTO cursed (execution_id, created_at, expires_at)"
        " VALUES ('stays', now() - interval '1 h', now() - interval '1 s')",
    )


def test_a_batch_that_fails_costs_at_most_the_leadership_never_the_fence(server: Server) -> None:
    # PostgreSQL drops such a lock with a transaction that aborts, so a rival may slip in after each
    # failure: then the lock, and the deleting, are the rival's.
    cursed_barrier(server)
    # Swept after the cursed one, in the same sweep.
    adoptable(server, "next_table")
    server.execute(
        "CREATE TRIGGER note_reaping AFTER DELETE ON next_table FOR EACH ROW EXECUTE FUNCTION note_reaping()"
    )
    overdue(server, "first", table="next_table")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until_reaped(server, "first", table="next_table")
    wait_until(lambda: sum(row.errors for row in by_pid(server).values()), bool, "the curse to be met")
    for turn in range(20):
        overdue(server, f"orphan {turn:02}", table="next_table")
        wait_until_reaped(server, f"orphan {turn:02}", table="next_table")
    assert len(reapers(server)) == 21
    assert barriers(server, "cursed") == {"stays"}


def test_after_a_failed_batch_only_who_holds_the_lock_says_it_leads(make_server: Callable[..., Server]) -> None:
    # The interval is long: what the worker says after its cycle is what an operator sees for a while.
    server = make_server(
        {"pg_reaper.leadership": "advisory", "pg_reaper.interval": "30s", "pg_reaper.lease_duration": "60s",
         "pg_reaper.quarantine_limit": "0",
         "pg_reaper.enabled": "off"}
    )  # fmt: skip
    cursed_barrier(server)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(
        lambda: status(server),
        lambda row: row.errors > 0 and row.last_cycle > row.last_error_at,
        "the cycle of the failed batch to end",
    )
    assert server.query(HOLDERS) == [(pid,) for pid in leaders(server)]
