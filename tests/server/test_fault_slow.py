"""Batches that take too long: smaller ones are tried, down to one row, and the lease is never lost over them."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from harness.reaper import AT_ONCE, LockedGate, barriers, live, overdue, status, wait_for, wait_until_reaped, watch_lease
from harness.twins import ROOM, leaders, start_twins
from scenery import log
from scenery.barriers import arm_many

# A statement may take a second, a row takes 0.6 s: of two rows no batch goes through.
SLOW = {"pg_reaper.lease_duration": "3s", "pg_reaper.batch_size": "8", "pg_reaper.enabled": "off", **ROOM}


def slow_and_noted(server: Server) -> None:
    """Each row takes its time, as long as there is a row in ``slowly``; the sizes of batches that
    went through are noted."""
    server.execute(
        "CREATE TABLE slowly ()",
        "INSERT INTO slowly DEFAULT VALUES",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM public.slowly) THEN PERFORM pg_sleep(0.6); END IF; RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION slow()",
        "CREATE TABLE batches (n serial, rows bigint)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.batches (rows) SELECT count(*) FROM gone; RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER DELETE ON pg_barrier_state REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )


def sizes(server: Server) -> list[int]:
    return [rows for (rows,) in server.query("SELECT rows FROM batches ORDER BY n")]


def test_batches_shrink_to_one_row_and_grow_back_and_the_lease_stays_where_it_is(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(SLOW)
    slow_and_noted(server)
    live(server, "live")
    arm_many(server, 60, "now() - (100 - n) * interval '1 s'")
    server.set(**{"pg_reaper.enabled": "on"})
    before = wait_for(server, "leader")
    moves = watch_lease(server)
    # Somebody who would take the lease if it ran out.
    start_twins(server)
    wait_until(lambda: sizes(server), lambda now: len(now) >= 2, "rows to go one by one", 60)
    assert set(sizes(server)) == {1}
    tried = [
        int(entry.message.split("a batch of ")[1].split(" ")[0])
        for entry in log.warnings(server.log(), "did not go through and is tried again at half its size")
    ]
    assert tried[:3] == [8, 4, 2]
    assert all(entry.detail.startswith("SQLSTATE 57014") for entry in log.warnings(server.log(), "did not go through"))
    assert leaders(server) == [before.pid]
    server.execute("DELETE FROM slowly")
    wait_until_reaped(server, *(f"b{n}" for n in range(1, 61)))
    grown = sizes(server)
    assert sum(grown) == 60
    first = next(n for n, rows in enumerate(grown) if rows > 1)
    assert grown[first : first + 3] == [2, 4, 8]
    # Not for a moment was the lease anybody else's, nor taken anew.
    assert moves() == []
    assert leaders(server) == [before.pid]
    assert "stepped down" not in server.log()
    assert barriers(server) == {"live"}


def test_a_single_row_that_takes_too_long_is_reported_and_the_others_are_swept(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({**SLOW, "pg_reaper.lease_duration": "1s"})
    slow_and_noted(server)
    server.execute(
        "CREATE TABLE other (LIKE pg_barrier_state INCLUDING ALL)",
        "SELECT pg_reaper_adopt('other')",
    )
    overdue(server, "slow")
    overdue(server, "quick", table="other")
    moves = watch_lease(server)
    server.set(**{"pg_reaper.enabled": "on"})
    failures = lambda: log.failures(server.log(), "public.pg_barrier_state")  # noqa: E731
    found = wait_until(failures, bool, "the report")
    assert found[0].detail.startswith("SQLSTATE 57014")
    assert "statement_timeout" in found[0].hint
    wait_until_reaped(server, "quick", table="other")
    server.execute("DELETE FROM slowly")
    wait_until_reaped(server, "slow")
    assert [move.term for move in moves() if move.leader] == [1]


def test_a_lock_that_a_trigger_waits_for_is_given_up_in_time(make_server: Callable[..., Server]) -> None:
    # All else would end the batch after 200 s.
    server = make_server(
        {"pg_reaper.lease_duration": "600s", "pg_reaper.lock_timeout": "300ms", "deadlock_timeout": "1h"}
    )
    before = wait_for(server, "leader")
    gate = LockedGate(server, "gate")
    overdue(server, "gate", "behind")
    found = wait_until(
        lambda: log.failures(server.log(), "public.pg_barrier_state"), bool, "the report", AT_ONCE
    )
    assert found[0].detail.startswith("SQLSTATE 55P03")
    gate.open()
    wait_until_reaped(server, "gate", "behind")
    assert (status(server).pid, status(server).term) == (before.pid, before.term)


def test_the_setting_bounds_a_statement_below_a_third_of_the_lease(make_server: Callable[..., Server]) -> None:
    server = make_server(
        {"pg_reaper.lease_duration": "600s", "pg_reaper.statement_timeout": "300ms", "pg_reaper.enabled": "off"}
    )
    slow_and_noted(server)
    overdue(server, "slow")
    server.set(**{"pg_reaper.enabled": "on"})
    found = wait_until(
        lambda: log.failures(server.log(), "public.pg_barrier_state"), bool, "the report", AT_ONCE
    )
    assert found[0].detail.startswith("SQLSTATE 57014")
    server.set(**{"pg_reaper.statement_timeout": "30s"})
    wait_until_reaped(server, "slow")
