"""A row that cannot be reaped stops nothing: it goes into quarantine, and is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from harness import Server, wait_until
from harness.reaper import status, until_taken_up, wait_for, wait_for_cycles
from scenery import log
from scenery.barriers import BY_HAND, until_leading
from scenery.policies import KEYED, rows, until_rows, watched, write
from scenery.quarantine import held, keys, mend, refuse, until_held, until_tried

TABLE = "public.jobs"


def some_bad(server: Server) -> int:
    """Rows that are due and cannot be deleted, among others that can."""
    policy = watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad1", due="-3 h")
    write(server, TABLE, *(f"good{n}" for n in range(500)), due="-2 h")
    write(server, TABLE, "bad2", due="-2 h")
    write(server, TABLE, *(f"better{n}" for n in range(500)), due="-1 h")
    write(server, TABLE, "bad3", due="-1 s")
    return policy


def test_a_row_that_cannot_be_deleted_stops_nothing(make_server: Callable[..., Server]) -> None:
    # So long is the first wait, which begins with the batch that failed.
    server = make_server({"pg_reaper.interval": "1s", **BY_HAND})
    policy = some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    until_rows(server, TABLE, "bad1", "bad2", "bad3")
    found = until_held(server, "bad1", "bad2", "bad3", policy=policy)
    for row in found:
        name = row.key["id"]
        assert (row.relation, row.error, row.sqlstate) == ("jobs", f"not {name}", "P0001")
        assert row.tries >= 1 and row.next_try > row.last_failed_at >= row.first_failed_at > row.deadline
        assert row.deadline == server.value("SELECT due FROM jobs WHERE id = %s", [name])
    assert server.value("SELECT quarantined FROM pg_reaper_policies WHERE policy = %s", [policy]) == 3
    # Rows that come later are none the worse for it.
    write(server, TABLE, "later")
    until_rows(server, TABLE, "bad1", "bad2", "bad3")


def test_each_is_told_of_once_and_the_sweep_counts_as_successful(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "50ms", **BY_HAND})
    policy = some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    until_held(server, "bad1", "bad2", "bad3")
    until_tried(server, 3)
    told = log.warnings(server.log(), "goes into quarantine")
    assert [line.message for line in told] == [
        f'row {{"id": "bad{n}"}} of {TABLE} cannot be reaped, and goes into quarantine: not bad{n}' for n in (1, 2, 3)
    ]
    for line in told:
        assert line.detail.startswith(f"SQLSTATE P0001. Policy {policy}. Next try at ")
        assert line.hint.startswith("The batch was rolled back")
    assert log.failures(server.log(), TABLE) == []
    now = status(server)
    assert (now.failures_in_a_row, now.last_error, now.rows_reaped) == (0, None, 1000)


def test_many_are_told_of_as_far_as_the_limit_goes(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.log_limit": "2", "pg_reaper.interval": "1s", **BY_HAND})
    some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    until_held(server, "bad1", "bad2", "bad3")
    said = lambda: log.warnings(server.log(), "into quarantine")  # noqa: E731
    lines = wait_until(said, lambda lines: len(lines) == 3, "two lines and a summary")
    assert lines[2].message == f"1 more row of {TABLE} goes into quarantine"


def test_what_is_mended_goes_by_itself(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "50ms", **BY_HAND})
    some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    until_held(server, "bad1", "bad2", "bad3")
    mend(server, TABLE)
    until_rows(server, TABLE)
    until_held(server)
    out = lambda: [entry.message for entry in log.entries(server.log()) if "out of quarantine" in entry.message]  # noqa: E731
    wait_until(out, lambda lines: sum(int(line.split()[-1]) for line in lines) == 3, "three rows to be told of")


def test_a_parent_goes_when_its_last_child_has(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "50ms", **BY_HAND})
    watched(server, "parents", KEYED)
    server.execute("CREATE TABLE children (up text REFERENCES parents)")
    write(server, "parents", "a", "b", "c")
    server.execute("INSERT INTO children VALUES ('b')")
    server.set(**{"pg_reaper.enabled": "on"})
    (row,) = until_held(server, "b")
    assert row.sqlstate == "23503"
    assert row.error.endswith(': Key (id)=(b) is still referenced from table "children".'), row.error
    until_rows(server, "parents", "b")
    server.execute("DELETE FROM children")
    until_rows(server, "parents")
    until_held(server)


def test_each_failure_doubles_the_wait(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "400ms", **BY_HAND})
    watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad")
    server.set(**{"pg_reaper.enabled": "on"})
    waits: dict[int, timedelta] = {}

    def see() -> int:
        for row in held(server):
            waits.setdefault(row.tries, row.next_try - row.last_failed_at)
        return max(waits, default=0)

    wait_until(see, lambda tries: tries >= 4, "four tries")
    for tries, wait in waits.items():
        planned = timedelta(milliseconds=400 * 2 ** (tries - 1))
        # It is counted from the beginning of the visit, and written down at its end.
        assert planned / 2 < wait <= planned, waits


def test_the_next_worker_knows_what_the_last_one_found(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "1s", **BY_HAND})
    some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    until_tried(server, 3)
    server.set(**{"pg_reaper.enabled": "off"})
    wait_until(lambda: status(server).state, lambda state: state == "disabled", "the worker to idle")
    server.execute("UPDATE pg_reaper_quarantine SET next_try = now() + interval '50 min'")
    before = held(server)
    old = status(server).pid
    server.query("SELECT pg_terminate_backend(%s)", [old])
    server.set(**{"pg_reaper.interval": "50ms", "pg_reaper.enabled": "on"})
    wait_until(lambda: status(server), lambda now: now and now.pid != old, "another worker")
    until_leading(server)
    write(server, TABLE, "later")
    until_rows(server, TABLE, "bad1", "bad2", "bad3")
    wait_for_cycles(server)
    assert held(server) == before
    assert log.failures(server.log(), TABLE) == []


@pytest.mark.parametrize(
    ("complaint", "sqlstate"),
    [
        ("PERFORM count(*) FROM public.secrets", "42501"),
        ("PERFORM 1 FROM no_such_table", "42P01"),
        ("RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'disk full'", "53100"),
    ],
)
def test_an_error_of_the_table_suspends_it_and_isolates_nothing(
    make_server: Callable[..., Server], complaint: str, sqlstate: str
) -> None:
    server = make_server({"pg_reaper.interval": "50ms", **BY_HAND})
    server.execute("CREATE ROLE app LOGIN", "GRANT ALL ON SCHEMA public TO app", "CREATE TABLE public.secrets (n int)")
    watched(server, TABLE, KEYED)
    watched(server, "others", KEYED)
    server.execute("CREATE SEQUENCE attempts", "GRANT ALL ON attempts TO app", "ALTER TABLE jobs OWNER TO app")
    refuse(server, TABLE, "nextval('public.attempts') > 0", complaint)
    write(server, TABLE, *(f"job{n}" for n in range(100)))
    write(server, "others", "other")
    server.set(**{"pg_reaper.enabled": "on"})
    until_rows(server, "others")
    lines = wait_until(lambda: log.failures(server.log(), TABLE), lambda found: len(found) >= 3, "three failures")
    assert all(line.detail.startswith(f"SQLSTATE {sqlstate}") for line in lines)
    # One row each time: the first that is tried makes its batch fail, and nothing is halved.
    assert server.value("SELECT last_value FROM attempts") <= len(log.failures(server.log(), TABLE)) + 1
    assert held(server) == []
    assert len(rows(server, TABLE)) == 100


def test_a_row_that_takes_too_long_alone_goes_into_quarantine(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "50ms", "pg_reaper.statement_timeout": "300ms", **BY_HAND})
    watched(server, TABLE, KEYED)
    refuse(server, TABLE, complaint="PERFORM pg_sleep(30)")
    write(server, TABLE, "bad", due="-1 h")
    write(server, TABLE, *(f"good{n}" for n in range(20)))
    server.set(**{"pg_reaper.enabled": "on"})
    until_rows(server, TABLE, "bad")
    (row,) = until_held(server, "bad")
    assert row.sqlstate == "57014"


def test_thousands_at_the_head_of_the_index_starve_nothing_and_keep_nobody_awake(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.interval": "200ms", **BY_HAND})
    watched(server, TABLE, KEYED)
    server.execute("CREATE SEQUENCE attempts")
    refuse(server, TABLE, "OLD.id ~ '^bad' AND nextval('public.attempts') > 0")
    bad = [f"bad{n:04}" for n in range(3000)]
    write(server, TABLE, *bad, due="-1 h")
    write(server, TABLE, *(f"good{n}" for n in range(3000)))
    server.set(**{"pg_reaper.enabled": "on"})
    until_rows(server, TABLE, *bad, timeout=60)
    until_held(server, *bad, timeout=60)
    # Whatever comes later goes at once, and those rows are not tried for it.
    # Written while the worker idles, or it may write over it what it has just tried.
    server.set(**BY_HAND)
    wait_for(server, "disabled")
    server.execute("UPDATE pg_reaper_quarantine SET next_try = now() + interval '50 min'")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_for(server, "leader")
    until_taken_up(server)
    before = server.value("SELECT last_value FROM attempts")
    for n in range(5):
        write(server, TABLE, f"later{n}")
        until_rows(server, TABLE, *bad)
    wait_for_cycles(server)
    assert server.value("SELECT last_value FROM attempts") == before
    assert len(held(server)) == 3000


@pytest.mark.parametrize(("limit", "said"), [(2, "2 rows of it are in quarantine, and one more failed: not bad"), (0, "not bad")])
def test_a_full_quarantine_suspends_the_table(make_server: Callable[..., Server], limit: int, said: str) -> None:
    server = make_server({"pg_reaper.interval": "50ms", "pg_reaper.quarantine_limit": str(limit), **BY_HAND})
    some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    lines = wait_until(lambda: log.failures(server.log(), TABLE), lambda found: len(found) >= 2, "two failures")
    assert said in lines[0].message
    assert len(held(server)) == limit
    if limit:
        assert "pg_reaper.quarantine_limit" in lines[0].hint
        # More people see the status than may see the table.
        assert "not bad" not in status(server).last_error
    server.set(**{"pg_reaper.quarantine_limit": "3"})
    until_rows(server, TABLE, "bad1", "bad2", "bad3")
    until_held(server, "bad1", "bad2", "bad3")


def test_whoever_writes_about_the_same_rows_holds_nobody_up(make_server: Callable[..., Server]) -> None:
    # Were it to wait for a lock, it would wait for longer than the test does.
    patient = {"pg_reaper.lock_timeout": "60s", "pg_reaper.lease_duration": "10min"}
    server = make_server({"pg_reaper.interval": "50ms", **patient, **BY_HAND})
    some_bad(server)
    server.set(**{"pg_reaper.enabled": "on"})
    until_held(server, "bad1", "bad2", "bad3")
    with server.connect() as session:
        session.execute("BEGIN")
        session.execute("SELECT FROM pg_reaper_quarantine FOR UPDATE")
        for n in range(5):
            write(server, TABLE, f"later{n}")
            until_rows(server, TABLE, "bad1", "bad2", "bad3")
        tries = max(row.tries for row in held(server))
        session.execute("ROLLBACK")
    until_tried(server, tries + 1)
    assert log.failures(server.log(), TABLE) == []


def by_key(server: Server, columns: str, insert: str) -> list[dict[str, Any]]:
    """The keys in quarantine of a table none of whose rows can be deleted."""
    server.execute(f'CREATE TABLE "Odd ""one" ({columns}, due timestamptz DEFAULT now())')
    server.execute(
        'CREATE INDEX ON "Odd ""one" (due)',
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$",
        'CREATE TRIGGER never BEFORE DELETE ON "Odd ""one" FOR EACH ROW EXECUTE FUNCTION never()',
        """SELECT pg_reaper_add_policy('"Odd ""one"', 'due')""",
        f'INSERT INTO "Odd ""one" VALUES {insert}',
        "SELECT pg_reaper_sweep()",
    )
    return [row.key for row in held(server)]


@pytest.mark.parametrize(
    ("columns", "insert", "found"),
    [
        ("b int, a text, PRIMARY KEY (a, b)", "(1, 'x')", [{"a": "x", "b": 1}]),
        ('"K\'ey""s" text PRIMARY KEY', "('line\n\"break\"')", [{"K'ey\"s": 'line\n"break"'}]),
        ("n int", "(1)", [{"ctid": "(0,1)"}]),
        ("n int, id int PRIMARY KEY, gone int", "(1, 7, 1)", [{"id": 7}]),
    ],
)
def test_a_row_is_named_by_its_primary_key(
    make_server: Callable[..., Server], columns: str, insert: str, found: list[dict[str, Any]]
) -> None:
    assert by_key(make_server(BY_HAND), columns, insert) == found


def test_keys_that_do_not_let_themselves_be_written_are_left_out(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(
        "CREATE TYPE shy AS ENUM ('a')",
        "CREATE FUNCTION as_json(shy) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'no'; END $$",
        "CREATE CAST (shy AS json) WITH FUNCTION as_json(shy)",
    )
    assert by_key(server, "id shy PRIMARY KEY", "('a')") == [{"ctid": "(0,1)"}]
