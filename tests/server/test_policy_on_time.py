"""Rows vanish when they are due, not at the next interval; and what is not due wakes nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import status, wait_for, wait_for_cycles, wait_for_sweep
from scenery.barriers import arm, count
from scenery.policies import add, rows, until_rows, watched, write

# A row that is gone long before this was met by its deadline.
INTERVAL = {"pg_reaper.interval": "60s", "pg_reaper.lease_duration": "180s"}
FAR_SOONER = 30

# So that the row is written at least one interval before its deadline, and the interval is no
# explanation of its end: the policy is set up while the interval is short.
SOON = "3 s"


def slow_down(server: Server, interval: dict[str, str] = INTERVAL) -> None:
    """The worker has seen the table, and has an interval much longer than the test."""
    server.set(**interval)
    # It sweeps at once when it has taken up new settings, and then sleeps.
    wait_until(lambda: status(server).last_sweep, bool, "a sweep")


def gone_on_time(server: Server, table: str, *left: str) -> None:
    """The row that is due soon goes when it is, and the interval has nothing to do with it."""
    began = server.value("SELECT clock_timestamp()")
    until_rows(server, table, *left, timeout=FAR_SOONER)
    assert server.value("SELECT clock_timestamp() - %s::timestamptz < interval '1 s' * %s", [began, FAR_SOONER])


@pytest.mark.parametrize(
    ("columns", "due", "settings"),
    [
        ("id text, due timestamptz", "now() + interval '3 s'", {}),
        ("id text, due timestamptz", "now() + interval '3 s' - interval '1 mon'", {"ttl": "1 mon"}),
        ("id text, due timestamptz", "now() + interval '3 s' - interval '40 days'", {"ttl": "40 days"}),
        ("id text, due timestamp", "now() AT TIME ZONE 'Asia/Kathmandu' + interval '3 s'", {"time_zone": "Asia/Kathmandu"}),
        ("id text, due timestamptz", "now() + interval '3 s'", {"filter": "id <> 'left'"}),
    ],
)  # fmt: skip
def test_a_row_is_reaped_when_it_is_due_and_not_at_the_next_interval(
    server: Server, columns: str, due: str, settings: dict[str, str]
) -> None:
    watched(server, "jobs", columns, **settings)
    server.execute(f"INSERT INTO jobs VALUES ('due', {due}), ('left', {due} + interval '1 day'), ('never', NULL)")
    slow_down(server)
    assert rows(server, "jobs") == ["due", "left", "never"], "the test did not arrange what it wants to see"
    gone_on_time(server, "jobs", "left", "never")


def test_barriers_are_on_time_as_well(server: Server) -> None:
    wait_for(server, "leader")
    arm(server, "due", due=SOON)
    arm(server, "alive", due="1 h")
    slow_down(server)
    wait_until(lambda: count(server), lambda n: n == 1, "the barrier to be reaped", timeout=FAR_SOONER)


def test_deadlines_one_after_the_other_are_each_met(server: Server) -> None:
    watched(server, "jobs")
    for n in range(6):
        write(server, "jobs", f"row {n}", due=f"{3 + n} s")
    slow_down(server)
    wait_until(lambda: rows(server, "jobs"), lambda left: len(left) <= 3, "half of the rows to be gone", timeout=FAR_SOONER)
    until_rows(server, "jobs", timeout=FAR_SOONER)


def test_a_row_that_falls_due_while_its_table_is_swept_does_not_wait_for_the_interval(server: Server) -> None:
    watched(server, "jobs")
    server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON jobs FOR EACH ROW WHEN (OLD.id = 'slow') EXECUTE FUNCTION slow()",
    )
    write(server, "jobs", "slow", due="3 s")
    write(server, "jobs", "meanwhile", due="4 s")
    slow_down(server)
    assert rows(server, "jobs") == ["meanwhile", "slow"], "the test did not arrange what it wants to see"
    gone_on_time(server, "jobs")


def test_a_partial_index_of_what_the_filter_lets_through_serves(server: Server) -> None:
    server.execute(
        "CREATE TABLE jobs (id text, due timestamptz, state text)",
        "INSERT INTO jobs SELECT 'x' || n, now() + n * interval '1 ms', 'open' FROM generate_series(1, 200000) n",
        "CREATE INDEX ON jobs (due) WHERE state = 'done'",
        "ANALYZE jobs",
    )
    told: list[str] = []
    with server.connect() as session:
        session.add_notice_handler(lambda n: told.append(n.message_primary or ""))
        session.execute("SELECT pg_reaper_add_policy('jobs', 'due', filter => 'state = ''done''')")
    assert told == []
    write(server, "jobs", "due", state="done", due=SOON)
    slow_down(server)
    wait_until(
        lambda: server.value("SELECT count(*) FROM jobs WHERE state = 'done'"), lambda n: n == 0, "it", timeout=FAR_SOONER
    )
    # Those that are left out are not read on the way.
    server.set(**{"pg_reaper.interval": "100ms"})
    statistics = "SELECT n_tup_del, seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'"
    scans = wait_until(lambda: server.query(statistics)[0], lambda now: now[0] == 1, "the row in the statistics")[1]
    write(server, "jobs", "again", state="done", due="1 s")
    wait_for_cycles(server, 10)
    assert wait_until(lambda: server.query(statistics)[0], lambda now: now[0] == 2, "the other one") == (2, scans)


def cycles_in(server: Server, seconds: float) -> int:
    """How many cycles are seen to end in a stretch of time."""
    until = server.value("SELECT clock_timestamp() + %s * interval '1 s'", [seconds])
    seen = set()

    def over() -> bool:
        seen.add(status(server).last_cycle)
        return bool(server.value("SELECT clock_timestamp() > %s", [until]))

    wait_until(over, bool, "the time to pass", timeout=60)
    return len(seen) - 1


def idle(server: Server, interval: dict[str, str] = INTERVAL) -> None:
    """Waits for the worker to have had its look, and sees that it sleeps then."""
    slow_down(server, interval)
    wait_until(lambda: cycles_in(server, 1), lambda n: n <= 2, "the worker to settle down")
    assert cycles_in(server, 3) <= 2


def test_rows_that_never_expire_wake_nobody(server: Server) -> None:
    watched(server, "jobs")
    watched(server, "later", ttl="1 mon")
    watched(server, "days", "id text, due date", ttl="1 day", time_zone="UTC")
    for table in ("jobs", "later"):
        server.execute(
            f"INSERT INTO {table} SELECT n, due FROM generate_series(1, 300) n,"
            " unnest(ARRAY['infinity', '294276-12-31', NULL, '9999-12-31']::timestamptz[]) AS due"
        )
    server.execute("INSERT INTO days VALUES ('x', 'infinity'), ('y', '5874897-12-31'), ('z', NULL)")
    idle(server)
    assert "failed" not in server.log()
    assert count(server, "jobs") == 1200


def test_a_row_that_is_due_but_locked_wakes_nobody(server: Server) -> None:
    watched(server, "jobs")
    write(server, "jobs", "locked", "free", due="1 s")
    session = server.connect(autocommit=False)
    session.execute("SELECT FROM jobs WHERE id = 'locked' FOR UPDATE")
    idle(server)
    until_rows(server, "jobs", "locked")
    session.rollback()
    server.reload()
    until_rows(server, "jobs")


def test_a_row_that_a_trigger_keeps_wakes_nobody(server: Server) -> None:
    watched(server, "jobs")
    server.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION keep()",
    )
    write(server, "jobs", "kept", due="1 s")
    idle(server)
    assert rows(server, "jobs") == ["kept"]


def test_rows_that_the_filter_leaves_out_wake_nobody(server: Server) -> None:
    watched(server, "jobs", filter="state = 'done'")
    # Overdue, due in the coming seconds, and due much later.
    server.execute(
        "INSERT INTO jobs SELECT n, now() + (n - 10000) * interval '1 ms', 'open' FROM generate_series(1, 30000) n"
    )
    idle(server)


def test_a_row_due_by_one_way_of_counting_alone_wakes_nobody(server: Server) -> None:
    # Written on the 31st, with a ttl of months and days that lead from there past the end of a
    # shorter month: by its own count it was due a while ago, by that back from now it will be
    # within the interval.
    server.execute("CREATE TABLE jobs (id text, due timestamptz)", "CREATE INDEX ON jobs (due)")
    (ttl, due) = server.query(
        "SELECT ttl::text, due FROM generate_series(0, 40) AS day, generate_series(1, 11) AS month,"
        " LATERAL (SELECT make_interval(months => month, days => day)) AS t (ttl),"
        " LATERAL (SELECT now() - ttl + interval '500 s') AS d (due)"
        " WHERE due + ttl < now() - interval '1 h' LIMIT 1"
    )[0]
    add(server, "jobs", ttl=ttl)
    server.query("INSERT INTO jobs VALUES ('between', %s)", [due])
    idle(server, {"pg_reaper.interval": "600s", "pg_reaper.lease_duration": "1800s"})
    assert rows(server, "jobs") == ["between"]


def test_an_idle_worker_writes_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server(
        {
            "autovacuum": "off", "wal_level": "minimal", "max_wal_senders": "0", "checkpoint_timeout": "1h",
            "pg_reaper.leadership": "advisory",
        }
    )  # fmt: skip
    server.execute("CREATE FUNCTION is_done(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN $1 = 'done'; END $$")
    watched(server, "jobs", filter="is_done(state)", ttl="1 day", time_zone="Europe/Berlin")
    watched(server, "days", "id text, due date", time_zone="UTC")
    write(server, "jobs", "alive", state="done")
    write(server, "jobs", "left out", due="-1 year")
    server.execute("INSERT INTO days VALUES ('alive', now() + interval '3 days')")
    wait_for_sweep(server)

    def counters() -> tuple[int, int]:
        (row,) = server.query(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
            " pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        )
        return row

    def written_in_some_cycles() -> tuple[int, int]:
        before = counters()
        seen = {status(server).last_cycle}
        wait_until(lambda: seen.add(status(server).last_cycle) or len(seen), lambda n: n > 10, "cycles")  # type: ignore[func-returns-value]
        after = counters()
        return after[0] - before[0], after[1] - before[1]

    wait_until(written_in_some_cycles, lambda written: written == (0, 0), "cycles that write nothing")
