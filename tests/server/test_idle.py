"""What it costs to have nothing to do, and that cost follows the rows that expire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness import Server, wait_until
from scenery.barriers import arm, arm_many, count, status, until_leading

INTERVAL = 0.1

# Nothing but the worker and the test itself is to be seen in the counters.
QUIET = {
    "autovacuum": "off",
    "pg_reaper.log_limit": "0",
    # Else standby snapshots and checkpoints write, too.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
}


@dataclass
class Meter:
    """What the server's counters stood at. The last two lag by up to a second, together."""

    seconds: float
    xids: int
    wal: int
    blocks: int
    renewals: int


def read(server: Server) -> Meter:
    """The counters now. Reading them takes no transaction id and writes nothing."""
    (row,) = server.query(
        "SELECT extract(epoch FROM clock_timestamp())::float8,"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
        " pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,"
        " (SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit"
        "  FROM pg_statio_user_tables WHERE relname = 'pg_barrier_state')::bigint,"
        " (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'pg_reaper_lease')::bigint"
    )
    return Meter(*row)


def renewals_later(server: Server, renewals: int) -> tuple[Meter, Meter]:
    """The counters now, and after the worker has renewed its lease so often: once a cycle."""
    # From the moment they are brought up to date, so that both ends lag alike.
    start = read(server)
    before = wait_until(lambda: read(server), lambda now: now.renewals > start.renewals, "fresh counters")
    target = before.renewals + renewals
    return before, wait_until(lambda: read(server), lambda now: now.renewals >= target, f"{renewals} renewals")


def test_an_idle_cycle_of_a_leader_costs_one_renewal_and_no_more(make_server: Callable[..., Server]) -> None:
    server = make_server(QUIET)
    until_leading(server)
    arm(server, "alive", due="1 h")
    before, after = renewals_later(server, 20)
    # A cycle begins once an interval; one more may fall on either end.
    cycles = (after.seconds - before.seconds) / INTERVAL + 2
    assert after.xids - before.xids <= cycles


def test_an_idle_leader_by_session_lock_takes_no_transaction_id_and_writes_nothing(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({**QUIET, "pg_reaper.leadership": "advisory"})
    until_leading(server)
    arm(server, "alive", due="1 h")

    # What came before may settle: hint bits are written to the log where pages have checksums.
    def written_in_ten_cycles() -> tuple[int, int]:
        before = read(server)
        seen = {status(server)["last_cycle"]}
        # A cycle tells its time twice: when it begins to sweep, and when it ends.
        wait_until(lambda: seen.add(status(server)["last_cycle"]) or len(seen), lambda n: n > 20, "ten cycles")
        after = read(server)
        return after.xids - before.xids, after.wal - before.wal

    wait_until(written_in_ten_cycles, lambda written: written == (0, 0), "ten cycles that write nothing")


def deletes_are_counted(server: Server, rows: int) -> None:
    """Waits until the work itself has gone into the statistics, so that only idleness follows."""
    wait_until(
        lambda: server.value("SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'pg_barrier_state'"),
        lambda n: n == rows,
        "the deletes in the statistics",
    )


DEAD = 60_000


@pytest.fixture
def haunted(make_server: Callable[..., Server]) -> Server:
    """A server that has reaped many rows whose entries an old snapshot keeps in the index."""
    rows = DEAD
    # So many cycles between two walks that may take one part in a hundred of the time.
    server = make_server({**QUIET, "pg_reaper.enabled": "off", "pg_reaper.interval": "20ms"})
    arm(server, "alive", due="1 h")
    arm_many(server, rows, "now() - ((n * 7919) % 60013) * interval '1 s' - interval '1 s'")
    old = server.connect(autocommit=False)
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert old.execute("SELECT count(*) FROM pg_barrier_state").fetchone() == (rows + 1,)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: count(server), lambda n: n == 1, "all but the live row to be reaped")
    deletes_are_counted(server, rows)
    return server


def test_dead_entries_that_an_old_snapshot_holds_are_not_walked_every_cycle(haunted: Server) -> None:
    before, after = renewals_later(haunted, 100)
    # A walk of the left edge visits every dead entry and its row, which lies on another page than the
    # one before.
    assert (after.blocks - before.blocks) / (after.renewals - before.renewals) < DEAD / 4


def test_a_deadline_far_in_the_past_written_late_is_found_all_the_same(haunted: Server) -> None:
    arm_many(haunted, 3, "now() - interval '1 year'", prefix="late")
    wait_until(lambda: count(haunted), lambda n: n == 1, "the late rows to be reaped")


def test_a_decrement_stays_a_heap_only_update(make_server: Callable[..., Server]) -> None:
    server = make_server(QUIET)
    arm(server, "a", "b", "c", "d", due="1 h", remaining=10)
    for _ in range(5):
        server.execute(
            "UPDATE pg_barrier_state SET remaining = remaining - 1, results = results || '[1]',"
            " last_progress_at = clock_timestamp()"
        )
    updates = wait_until(
        lambda: server.query(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'pg_barrier_state'"
        ),
        lambda rows: rows[0][0] == 20,
        "the updates in the statistics",
    )
    assert updates == [(20, 20)]


def test_looking_for_due_rows_does_not_read_the_live_ones(make_server: Callable[..., Server]) -> None:
    server = make_server(QUIET)
    arm_many(server, 20_000, "now() + n * interval '1 h'", prefix="alive")
    server.execute("ANALYZE pg_barrier_state")
    arm(server, "dead")
    deletes_are_counted(server, 1)
    before, after = renewals_later(server, 20)
    table = server.value("SELECT pg_relation_size('pg_barrier_state') / current_setting('block_size')::int")
    assert (after.blocks - before.blocks) / (after.renewals - before.renewals) < table / 4
