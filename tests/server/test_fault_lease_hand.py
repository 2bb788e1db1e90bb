"""The lease written by hand in the middle of a batch, or its table dropped and put back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped, watch_reaping,
)  # fmt: skip
from scenery.busy import UNHURRIED, Brake

HANDS = {
    "to another": "UPDATE pg_reaper_lease SET leader = 'hand', term = term + 1, acquired_at = clock_timestamp()",
    "to another in the same term": "UPDATE pg_reaper_lease SET leader = 'hand', acquired_at = clock_timestamp()",
    "to another from the future": "UPDATE pg_reaper_lease SET leader = 'hand', term = term + 1, acquired_at = now() + interval '1 y'",
    "to another for ever": "UPDATE pg_reaper_lease SET leader = 'hand', term = term + 1, acquired_at = 'infinity'",
    "to another long ago": "UPDATE pg_reaper_lease SET leader = 'hand', term = term + 1, acquired_at = '-infinity'",
    "to nobody": "UPDATE pg_reaper_lease SET leader = ''",
    "deleted": "DELETE FROM pg_reaper_lease",
}
# These are fresh, so they are left to run out, which takes ten minutes.
FRESH = {"to another", "to another in the same term"}


@pytest.mark.parametrize("hand", HANDS)
def test_written_over_in_the_middle_of_a_batch_nothing_of_the_batch_commits_in_the_old_term(
    make_server: Callable[..., Server], hand: str
) -> None:
    server = make_server(UNHURRIED)
    before = wait_for(server, "leader")
    reapings = watch_reaping(server)
    brake = Brake(server)
    overdue(server, "one", "two")
    brake.wait_for_arrival()
    # The batch holds the row, and gives way.
    with server.connect() as session:
        session.execute(f"SET statement_timeout = '{AT_ONCE}s'")
        session.execute(HANDS[hand])
    brake.release()
    if hand in FRESH:
        wait_for(server, "standby")
        wait_for_cycles(server)
        assert barriers(server) == {"one", "two"}
        server.execute("UPDATE pg_reaper_lease SET leader = ''")
    wait_until_reaped(server, "one", "two")
    after = wait_for(server, "leader")
    assert after.pid == before.pid
    assert lease(server).leader == after.leader
    assert after.term > before.term
    assert {row.leader for row in reapings()} == {after.leader}


def test_a_lease_table_that_is_put_back_is_taken_up_without_a_hand(make_server: Callable[..., Server]) -> None:
    server = make_server()
    before = wait_for(server, "leader")
    server.execute(
        "CREATE TABLE aside (LIKE pg_reaper_lease INCLUDING ALL)",
        "INSERT INTO aside SELECT * FROM pg_reaper_lease",
        "ALTER EXTENSION pg_reaper DROP TABLE pg_reaper_lease",
        "DROP TABLE pg_reaper_lease",
    )
    wait_for(server, "standby")
    overdue(server, "due")
    wait_for_cycles(server)
    assert barriers(server) == {"due"}
    server.execute("ALTER TABLE aside RENAME TO pg_reaper_lease")
    wait_until_reaped(server, "due")
    after = wait_for(server, "leader")
    # What the row said goes on: its terms rise.
    assert (after.pid, after.term) == (before.pid, before.term + 1)
    wait_until(server.log, lambda text: "the lease is whole again" in text, "the log to say so")


def test_an_empty_lease_table_is_filled_and_no_term_is_issued_twice(make_server: Callable[..., Server]) -> None:
    server = make_server()
    wait_for(server, "leader")
    server.execute("UPDATE pg_reaper_lease SET leader = '', term = 1000")
    before = wait_until(lambda: status(server), lambda row: row.term == 1001, "the term to go on")
    server.execute(
        "ALTER EXTENSION pg_reaper DROP TABLE pg_reaper_lease",
        "ALTER TABLE pg_reaper_lease RENAME TO gone",
        "CREATE TABLE pg_reaper_lease (LIKE gone INCLUDING ALL)",
        "DROP TABLE gone",
    )
    overdue(server, "due")
    wait_until_reaped(server, "due")
    after = wait_until(lambda: status(server), lambda row: (row.term or 0) > before.term, "a new term")
    assert after.pid == before.pid
