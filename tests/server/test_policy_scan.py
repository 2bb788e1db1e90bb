"""A table without an index on the deadline is swept too, within a budget for reading it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import wait_for_cycles
from scenery.barriers import BY_HAND
from scenery.policies import add, rows, sweep, until_rows
from scenery.quarantine import keys, mend, refuse, until_held

QUICK = {"pg_reaper.interval": "50ms", **BY_HAND}

# Each row fills a block, so that this is more than three steps of a scan.
BLOCKS = 3500


def large(server: Server, dead: str = "n % 2 = 0") -> int:
    """A large table without an index, some of whose rows are due; its policy."""
    server.execute(
        "CREATE TABLE jobs (id text PRIMARY KEY, due timestamptz, state text DEFAULT 'open', ballast text)",
        "ALTER TABLE jobs ALTER ballast SET STORAGE PLAIN",
        "INSERT INTO jobs SELECT to_char(n, 'FM0000'),"
        f" now() + CASE WHEN {dead} THEN interval '-1 h' ELSE interval '1 h' END, 'open', repeat('x', 5000)"
        f" FROM generate_series(1, {BLOCKS}) AS n",
        "VACUUM ANALYZE jobs",
    )
    return add(server, "jobs")


def scans(server: Server) -> int:
    """How often all of the table was read, once the worker has told."""
    wait_for_cycles(server, 30)
    return server.value("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'")


def odd() -> list[str]:
    return [f"{n:04}" for n in range(1, BLOCKS + 1) if n % 2]


def test_it_is_swept_step_by_step_and_never_read_whole(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    large(server)
    before = server.value("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'")
    server.set(**{"pg_reaper.enabled": "on"})
    gone = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'jobs'"
    wait_until(lambda: server.value(gone), (BLOCKS // 2).__eq__, "the dead ones to go", timeout=60)
    assert scans(server) == before
    assert rows(server, "jobs") == odd()


def test_a_sweep_by_hand_takes_all_steps(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    policy = large(server)
    assert server.value("SELECT pg_reaper_sweep(policy => %s, max_rows => 1000)", [policy]) == 1000
    assert sweep(server, policy) == BLOCKS // 2 - 1000
    assert rows(server, "jobs") == odd()


def test_rows_that_cannot_go_are_tried_once_by_hand_however_many_steps_there_are(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(BY_HAND)
    policy = large(server, dead="n = 10")
    refuse(server, "jobs", "OLD.id = '0010'")
    for tries in (1, 2, 3):
        assert sweep(server, policy) == 0
        assert server.query("SELECT key ->> 'id', tries FROM pg_reaper_quarantine") == [("0010", tries)]
    mend(server, "jobs")
    assert sweep(server, policy) == 1
    assert keys(server) == []


def test_the_worker_goes_round_rows_that_cannot_go(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    large(server, dead="n IN (10, 2000, 2001, 3500)")
    refuse(server, "jobs", "OLD.id IN ('0010', '2000')")
    server.set(**{"pg_reaper.enabled": "on"})
    until_held(server, "0010", "2000")
    wait_until(lambda: {"2001", "3500"} & set(rows(server, "jobs")), lambda left: not left, "the others to go")
    mend(server, "jobs")
    wait_until(lambda: {"0010", "2000"} & set(rows(server, "jobs")), lambda left: not left, "them to go")


def test_an_index_is_used_once_it_is_there(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    large(server, dead="false")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_for_cycles(server)
    server.execute("CREATE INDEX late ON jobs (due)")
    used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'late'"
    wait_until(lambda: server.value(used), lambda n: n > 3, "the index to be used")
    server.execute("UPDATE jobs SET due = now() + interval '2 s' WHERE id = '0001'")
    wait_until(lambda: "0001" in rows(server, "jobs"), lambda there: not there, "the row to go")


@pytest.mark.parametrize("filter", [None, "state = 'done'"])
def test_a_small_one_is_swept_on_time_all_the_same(make_server: Callable[..., Server], filter: str | None) -> None:
    server = make_server({"pg_reaper.interval": "1s", "pg_reaper.lease_duration": "60s", **BY_HAND})
    server.execute("CREATE TABLE jobs (id text, due timestamptz, state text)")
    add(server, "jobs", **({"filter": filter} if filter else {}))
    server.execute("INSERT INTO jobs VALUES ('a', now() - interval '1 s', 'done'), ('b', now() + interval '1 h', 'done')")
    server.set(**{"pg_reaper.enabled": "on"})
    until_rows(server, "jobs", "b")
    server.execute("INSERT INTO jobs VALUES ('c', now() + interval '3 s', 'done'), ('d', now(), 'open')")
    until_rows(server, "jobs", *(["b", "d"] if filter else ["b"]))
