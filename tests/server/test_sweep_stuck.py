"""Barriers without progress, by pg_reaper.stuck_timeout: a scan in steps, since no index serves it."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness import Server, wait_until
from scenery import log
from scenery.barriers import BY_HAND, COLUMNS, adopted, count, ids, status, until_left

# As in src/decide/stuck.rs: how many blocks one step of the scan reads.
STUCK_STEP = 1024

STUCK = {"pg_reaper.stuck_timeout": "60s"}


def arm(server: Server, name: str, stood_still: str, table: str = "pg_barrier_state") -> None:
    """Arms a barrier that expires in an hour and last moved some time ago."""
    server.execute(
        f"INSERT INTO {table} (execution_id, remaining, expires_at, last_progress_at)"
        f" VALUES ('{name}', 3, now() + interval '1 h', now() - interval '{stood_still}')"
    )


def test_without_the_setting_no_progress_is_no_reason(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    arm(server, "stuck", "1 year")
    assert server.value("SELECT pg_reaper_sweep()") == 0


def test_the_worker_reaps_barriers_without_progress_and_spares_those_with(make_server: Callable[..., Server]) -> None:
    server = make_server(STUCK)
    arm(server, "moving", "1 s")
    arm(server, "stuck", "61 s")
    until_left(server, ["moving"])
    wait_until(server.log, lambda text: "stuck" in log.orphans(text), "the orphan in the log")
    message, record = log.orphans(server.log())["stuck"]
    assert record["rule"] == "stuck"
    idle = re.search(r"no progress for ([\d.]+) s,", message)
    # A minute and what the machine took to get there.
    assert idle is not None and 61 <= float(idle[1]) < 120, message


def test_the_setting_can_be_given_for_one_database(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    arm(server, "stuck", "61 s")
    server.execute("ALTER DATABASE postgres SET pg_reaper.stuck_timeout = '60s'")
    assert server.value("SELECT pg_reaper_sweep()") == 1


def test_a_decrement_in_flight_saves_its_barrier(make_server: Callable[..., Server]) -> None:
    server = make_server({**STUCK, **BY_HAND})
    arm(server, "rescued", "61 s")
    arm(server, "stuck", "61 s")
    task = server.connect(autocommit=False)
    task.execute(
        "UPDATE pg_barrier_state SET remaining = remaining - 1, last_progress_at = now()"
        " WHERE execution_id = 'rescued'"
    )
    server.set(**{"pg_reaper.enabled": "on"})
    until_left(server, ["rescued"])
    task.commit()
    swept = server.value("SELECT clock_timestamp()")
    wait_until(lambda: status(server)["last_sweep"], lambda now: now is not None and now > swept, "another sweep")
    # The scan of so short a table is due again after a quarter of the timeout: ask for one.
    assert server.value("SELECT pg_reaper_sweep()") == 0
    assert ids(server) == ["rescued"]


def wide(server: Server, rows: int) -> None:
    """An adopted table with one row to a block, every other of them without progress."""
    adopted(server, "public.wide", f"{COLUMNS}, filler char(5000)")
    server.execute(
        "ALTER TABLE wide ALTER filler SET STORAGE PLAIN",
        "INSERT INTO wide (execution_id, remaining, expires_at, last_progress_at, filler)"
        " SELECT 'n' || n, 1, 'infinity', CASE n % 2 WHEN 1 THEN now() - interval '2 min' ELSE 'infinity' END, 'x'"
        f" FROM generate_series(1, {rows}) n",
    )
    blocks = server.value("SELECT pg_relation_size('wide') / current_setting('block_size')::int")
    assert blocks > 2 * STUCK_STEP


def test_the_worker_scans_a_large_table_to_its_end_step_by_step(make_server: Callable[..., Server]) -> None:
    # A round begins every two seconds, a quarter of the timeout.
    server = make_server({"pg_reaper.stuck_timeout": "8s", "pg_reaper.log_limit": "0"})
    rows = 2 * STUCK_STEP + 500
    wide(server, rows)
    wait_until(lambda: count(server, "wide"), lambda n: n == rows // 2, "the stuck half of the table to be reaped")
    assert server.value("SELECT count(*) FROM wide WHERE last_progress_at < now()") == 0
    # And it begins again at the front: rows there that stand still later are found too.
    server.execute("UPDATE wide SET last_progress_at = now() - interval '2 min' WHERE execution_id IN ('n2', 'n2000')")
    wait_until(lambda: count(server, "wide"), lambda n: n == rows // 2 - 2, "the next round")


def test_one_call_scans_a_large_table_to_its_end(make_server: Callable[..., Server]) -> None:
    server = make_server({**STUCK, **BY_HAND, "pg_reaper.log_limit": "0"})
    wide(server, 2 * STUCK_STEP + 500)
    assert server.value("SELECT pg_reaper_sweep(max_rows => 700)") == 700
    assert server.value("SELECT pg_reaper_sweep()") == STUCK_STEP + 250 - 700
    assert server.value("SELECT pg_reaper_sweep()") == 0


def test_a_row_both_expired_and_stuck_counts_once(make_server: Callable[..., Server]) -> None:
    server = make_server({**STUCK, **BY_HAND})
    adopted(server, "public.jobs")
    server.execute("INSERT INTO jobs VALUES ('both', '', 1, now() - interval '1 s', now() - interval '2 min')")
    assert server.value("SELECT pg_reaper_sweep(max_rows => 5)") == 1
