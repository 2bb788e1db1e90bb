"""A row for which the filter of its policy raises an error is isolated as any other that cannot be reaped."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import wait_for_cycles
from scenery import log
from scenery.barriers import BY_HAND
from scenery.policies import KEYED, add, go, rows, shown, sweep, until_rows, watched, write
from scenery.quarantine import held, keys, until_held, until_tried

TABLE = "public.jobs"
QUICK = {"pg_reaper.interval": "50ms", **BY_HAND}

# An error for what is no number: 22P02.
FILTER = "state::integer > 0"
INDEXES = {
    "by an index": "CREATE INDEX ON jobs (due)",
    "by tids": "CREATE INDEX ON jobs (due DESC)",
    "by a scan": "SELECT 1",
}


def numbers(server: Server, index: str = "CREATE INDEX ON jobs (due)", **settings: object) -> int:
    """A table whose policy has that filter; the policy."""
    server.execute(f"CREATE TABLE jobs ({KEYED})", index)
    return add(server, "jobs", filter=FILTER, **settings)


@pytest.mark.parametrize("tie", [False, True], ids=["in order", "all at once"])
@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_such_a_row_stops_no_other(make_server: Callable[..., Server], index: str, tie: bool) -> None:
    server = make_server({**QUICK, "pg_reaper.batch_size": "10"})
    numbers(server, index)
    step = "interval '1 h'" if tie else "interval '1 h' - n * interval '1 ms'"
    # One of a hundred raises an error, one is left out.
    server.execute(
        f"INSERT INTO jobs SELECT to_char(n, 'FM0000'), now() - {step},"
        " CASE n % 100 WHEN 7 THEN 'none' WHEN 8 THEN '0' ELSE '1' END FROM generate_series(1, 500) AS n"
    )
    go(server)
    bad = ["0007", "0107", "0207", "0307", "0407"]
    until_rows(server, "jobs", *bad, *(f"{int(each) + 1:04}" for each in bad), timeout=60)
    found = until_held(server, *bad)
    assert {row.sqlstate for row in found} == {"22P02"}
    assert all('invalid input syntax for type integer: "none"' in row.error for row in found)
    assert log.failures(server.log(), TABLE) == []
    # What comes in behind them is reaped as well.
    write(server, "jobs", "late", state="1")
    until_tried(server, 3)
    wait_until(lambda: rows(server, "jobs"), lambda left: "late" not in left, "it to go")
    assert log.failures(server.log(), TABLE) == []


def test_it_goes_once_it_is_mended_or_stays_if_it_is_left_out_then(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    numbers(server)
    write(server, "jobs", "now", "never", state="none")
    go(server)
    until_held(server, "now", "never")
    server.execute("UPDATE jobs SET state = CASE id WHEN 'now' THEN '1' ELSE '0' END")
    until_rows(server, "jobs", "never")
    until_held(server)
    wait_for_cycles(server)
    assert rows(server, "jobs") == ["never"]


def test_one_among_many_that_are_left_out_keeps_nobody_busy(make_server: Callable[..., Server]) -> None:
    # All of them are due at the same time, and stay.
    server = make_server(QUICK)
    numbers(server)
    server.execute(
        "INSERT INTO jobs SELECT 'out ' || n, '2020-01-01', '0' FROM generate_series(1, 3000) AS n",
        "INSERT INTO jobs VALUES ('bad', '2020-01-01', 'none')",
    )
    go(server)
    until_held(server, "bad")

    def read_in_some_cycles() -> int:
        read = "SELECT coalesce(sum(idx_tup_fetch), 0) FROM pg_stat_user_tables WHERE relname = 'jobs'"
        before = server.value(read)
        # Counters come once a second.
        wait_for_cycles(server, 60)
        return server.value(read) - before

    # One cycle in five reads it now and then, where each read it twice.
    wait_until(read_in_some_cycles, lambda fetched: fetched < 30 * 3000, "cycles that do not read all of it", 15)


def test_one_that_is_not_due_yet_delays_nobody(make_server: Callable[..., Server]) -> None:
    # It falls within the interval, and so among those that the worker looks ahead to.
    server = make_server({**BY_HAND, "pg_reaper.interval": "1s"})
    numbers(server)
    write(server, "jobs", "ahead", due="1 h", state="none")
    write(server, "jobs", "soon", due="600 ms", state="none")
    go(server)
    write(server, "jobs", "good", due="700 ms", state="1")
    until_rows(server, "jobs", "ahead", "soon")
    until_held(server, "soon")
    assert log.failures(server.log(), TABLE) == []


def test_the_preview_goes_round_it(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    policy = numbers(server)
    # So many that PostgreSQL finds it dearer to see whether a row is among them than to ask the filter.
    bad = [f"bad {n:02}" for n in range(8)]
    write(server, "jobs", *bad, state="none")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        shown(server, policy)
    assert sweep(server, policy) == 0
    write(server, "jobs", "good", state="1")
    assert shown(server, policy) == ["good"]
    assert keys(server) == bad


def test_a_sweep_by_hand_isolates_it_too(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    policy = numbers(server)
    write(server, "jobs", "bad", state="none")
    write(server, "jobs", "good 1", "good 2", state="1")
    assert sweep(server, policy) == 2
    assert (rows(server, "jobs"), keys(server)) == (["bad"], ["bad"])
    server.execute("UPDATE jobs SET state = '2'")
    assert sweep(server, policy) == 1
    assert (rows(server, "jobs"), held(server)) == ([], [])


def test_without_a_quarantine_it_stops_its_table_loudly(make_server: Callable[..., Server]) -> None:
    server = make_server({**QUICK, "pg_reaper.quarantine_limit": "0"})
    policy = numbers(server)
    watched(server, "others")
    write(server, "jobs", "bad", state="none")
    write(server, "jobs", "good", state="1")
    write(server, "others", "dead")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        sweep(server, policy)
    go(server)
    until_rows(server, "others")
    assert rows(server, "jobs") == ["bad", "good"]
