"""What the worker makes of the lease row, whatever somebody wrote into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from harness import Server, wait_until
from harness.reaper import (
    barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped, watch_lease,
)  # fmt: skip

LEASE = timedelta(seconds=2)

# A stamp by which the row may be taken at once, whoever it names.
TAKEN_AT_ONCE = {
    "stale": "clock_timestamp() - interval '3 s'",
    "an hour old": "clock_timestamp() - interval '1 h'",
    "from before Christ": "timestamptz '4713-01-01 00:00:00 UTC BC'",
    "-infinity": "timestamptz '-infinity'",
    # Stamped by a clock that was set back since: no leader alive can have done that.
    "a day ahead": "clock_timestamp() + interval '1 day'",
    "from the far future": "timestamptz '294276-12-31 23:59:59 UTC'",
    "infinity": "timestamptz 'infinity'",
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with Server({"pg_reaper.interval": "100ms", "pg_reaper.lease_duration": "2s"}) as server:
        yield server


@pytest.mark.parametrize("stamp", TAKEN_AT_ONCE.values(), ids=TAKEN_AT_ONCE.keys())
def test_a_lease_with_a_stamp_no_live_leader_made_is_taken(shared: Server, stamp: str) -> None:
    before = wait_for(shared, "leader")
    shared.execute(f"UPDATE pg_reaper_lease SET leader = 'ghost', term = term + 10, acquired_at = {stamp}")
    after = wait_until(lambda: status(shared), lambda row: (row.term or 0) > before.term, "a new term")
    assert (after.pid, after.term) == (before.pid, before.term + 11)
    taken = lease(shared)
    assert taken.leader == after.leader
    assert abs(taken.acquired_at - after.last_cycle) < timedelta(minutes=1)


@pytest.mark.parametrize("ahead", ["0 s", "1 s"])
def test_a_lease_with_a_fresh_stamp_is_left_until_it_has_run_out(shared: Server, ahead: str) -> None:
    wait_for(shared, "leader")
    moves = watch_lease(shared)
    try:
        shared.execute(
            "UPDATE pg_reaper_lease SET leader = 'ghost', term = term + 1,"
            f" acquired_at = clock_timestamp() + interval '{ahead}'"
        )
        fresh = lease(shared)
        wait_for(shared, "standby")
        wait_until(lambda: lease(shared).leader, lambda leader: leader != "ghost", "the worker to take over")
        _ghost, taken = moves()
        assert taken.term == fresh.term + 1
        assert taken.acquired_at - fresh.acquired_at >= LEASE
    finally:
        shared.execute("DROP TRIGGER note_move ON pg_reaper_lease", "DROP FUNCTION note_move", "DROP TABLE moves")


def test_a_lease_with_an_empty_leader_is_free_however_fresh(make_server: Callable[..., Server]) -> None:
    # A lease that would take a minute to run out.
    server = make_server({"pg_reaper.lease_duration": "60s"})
    before = wait_for(server, "leader")
    server.execute("UPDATE pg_reaper_lease SET leader = '', term = 41, acquired_at = clock_timestamp()")
    after = wait_until(lambda: status(server), lambda row: row.term == 42, "the next term", 15)
    assert after.pid == before.pid
    assert "the lease was freed by somebody else" in server.log()


def test_a_dead_worker_s_lease_is_taken_when_it_has_run_out(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.enabled": "off"})
    wait_for(server, "disabled")
    moves = watch_lease(server)
    server.execute("UPDATE pg_reaper_lease SET leader = 'host:5432/postgres/1@1970', term = 7, acquired_at = now()")
    left = lease(server)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_for(server, "leader")
    _left, taken = moves()
    assert taken.term == 8
    assert taken.acquired_at - left.acquired_at >= LEASE


def test_a_deleted_lease_row_comes_back_and_its_terms_go_on_rising(shared: Server) -> None:
    before = wait_for(shared, "leader")
    for statement in ("DELETE FROM pg_reaper_lease", "TRUNCATE pg_reaper_lease"):
        shared.execute(statement)
        after = wait_until(
            lambda: status(shared),
            lambda row: row.state == "leader" and row.term > before.term,
            "the worker to lead in a new term",
        )
        assert after.pid == before.pid
        assert lease(shared)[:2] == (after.leader, after.term)
        before = after


def test_with_two_lease_rows_nobody_leads_until_one_is_gone(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    server.execute(
        "ALTER TABLE pg_reaper_lease DROP CONSTRAINT pg_reaper_lease_pkey",
        # Even where both say that this worker leads: which one counts cannot be told.
        "INSERT INTO pg_reaper_lease SELECT * FROM pg_reaper_lease",
    )
    wait_for(server, "standby")
    overdue(server, "due")
    after = wait_for_cycles(server, 5)
    assert (after.state, after.pid) == ("standby", before.pid)
    assert barriers(server) == {"due"}
    assert server.log().count("the lease has more than one row") == 1
    server.execute("DELETE FROM pg_reaper_lease WHERE ctid = (SELECT min(ctid) FROM pg_reaper_lease)")
    wait_until_reaped(server, "due")
    assert lease(server).term > before.term


def test_without_the_lease_table_nobody_leads_and_nothing_crashes(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    server.execute("ALTER EXTENSION pg_reaper DROP TABLE pg_reaper_lease", "DROP TABLE pg_reaper_lease")
    wait_for(server, "standby")
    overdue(server, "due")
    after = wait_for_cycles(server, 5)
    assert (after.state, after.pid) == ("standby", before.pid)
    assert barriers(server) == {"due"}
    assert server.log().count("WARNING:  pg_reaper: the lease") == 1
    assert server.value("SELECT pg_reaper_sweep()") == 1


def test_a_term_that_cannot_rise_stops_leadership_and_nothing_else(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    mark = server.log_mark()
    server.execute("UPDATE pg_reaper_lease SET leader = '', term = 9223372036854775807")
    after = wait_for_cycles(server, 4)
    assert (after.state, after.pid) == ("standby", before.pid)
    assert "out of range" in after.last_error
    server.execute("UPDATE pg_reaper_lease SET term = 100")
    after = wait_until(lambda: status(server), lambda row: row.state == "leader", "the worker to lead again")
    assert (after.pid, after.term) == (before.pid, 101)
    # It backed off: a line for each try, and each wait twice as long as the one before.
    assert server.log_since(mark).count("a cycle failed") <= 10
