"""The quarantine of tables of every kind: leaves, barriers, filters; and how it ends with them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import status, wait_for_cycles
from scenery import log
from scenery.barriers import BY_HAND, adopted, arm, until_leading, until_left
from scenery.policies import KEYED, add, go, rows, shown, sweep, until_rows, watched, write
from scenery.quarantine import held, keys, mend, refuse, until_held, until_tried

TABLE = "public.jobs"
QUICK = {"pg_reaper.interval": "50ms", **BY_HAND}
# A row's second try comes an interval after the first: not in a test's time.
SLOW = {"pg_reaper.interval": "1h", "pg_reaper.lease_duration": "2h", **BY_HAND}


def halt(server: Server) -> None:
    """Has the worker idle."""
    server.set(**{"pg_reaper.enabled": "off"})
    wait_until(lambda: status(server).state, lambda state: state == "disabled", "the worker to idle")


def partitioned(server: Server) -> int:
    """A table of two leaves, each with a row that cannot go; its policy."""
    server.execute(
        "CREATE TABLE events (id text, part int, due timestamptz, PRIMARY KEY (id, part)) PARTITION BY LIST (part)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)",
        "CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2)",
        "CREATE INDEX ON events (due)",
    )
    refuse(server, "events")
    server.execute(
        "INSERT INTO events SELECT kind || part, part, now() - interval '1 s'"
        " FROM generate_series(1, 2) AS part, unnest(ARRAY['bad', 'good']) AS kind"
    )
    return add(server, "events")


def test_each_leaf_has_its_own_rows(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    policy = partitioned(server)
    go(server)
    until_rows(server, "events", "bad1", "bad2")
    found = until_held(server, "bad1", "bad2", policy=policy)
    assert [(row.relation, row.key) for row in found] == [
        ("events_1", {"id": "bad1", "part": 1}),
        ("events_2", {"id": "bad2", "part": 2}),
    ]


@pytest.mark.parametrize("end", ["DROP TABLE events_1", "ALTER TABLE events DETACH PARTITION events_1"])
@pytest.mark.parametrize("unseen", [False, True])
def test_what_is_known_of_a_leaf_ends_with_it(make_server: Callable[..., Server], end: str, unseen: bool) -> None:
    server = make_server(QUICK)
    partitioned(server)
    go(server)
    until_held(server, "bad1", "bad2")
    if unseen:
        server.execute("SELECT pg_reaper_stop()", end, "SELECT pg_reaper_start()")
    else:
        server.execute(end)
    until_held(server, "bad2")


@pytest.mark.parametrize("end", ["DROP TABLE jobs", "SELECT pg_reaper_drop_policy({policy})"])
def test_what_is_known_of_a_policy_ends_with_it(make_server: Callable[..., Server], end: str) -> None:
    server = make_server(QUICK)
    policy = watched(server, TABLE, KEYED)
    other = watched(server, "others", KEYED)
    for table in (TABLE, "others"):
        refuse(server, table)
        write(server, table, "bad")
    go(server)
    until_held(server, "bad", "bad")
    server.execute(end.format(policy=policy))
    until_held(server, "bad", policy=other)
    until_held(server, "bad")


def test_barriers_are_no_exception(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    adopted(server, TABLE)
    refuse(server, TABLE, "OLD.execution_id ~ '^bad'", "RAISE 'not this one'")
    arm(server, "bad", "good", table=TABLE)
    go(server)
    until_left(server, ["bad"], TABLE)
    until_held(server, "bad", key="execution_id")
    log.until_told(server, "good")
    mend(server, TABLE)
    until_left(server, [], TABLE)
    log.until_told(server, "bad", "good")
    until_held(server)


def test_nor_are_those_without_progress(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.stuck_timeout": "1s", **QUICK})
    adopted(server, TABLE)
    refuse(server, TABLE, "OLD.execution_id ~ '^bad'", "RAISE 'not this one'")
    arm(server, "bad", "good", due="1 h", table=TABLE)
    server.execute("UPDATE jobs SET last_progress_at = now() - interval '1 min'")
    go(server)
    until_left(server, ["bad"], TABLE)
    (row,) = until_held(server, "bad", key="execution_id")
    # The deadline by which it was to go.
    late = server.value("SELECT last_progress_at + interval '1 s' FROM jobs")
    assert row.deadline == late
    until_tried(server, 3)
    assert log.failures(server.log(), TABLE) == []
    mend(server, TABLE)
    until_left(server, [], TABLE)
    until_held(server)


def test_what_a_filter_leaves_out_is_left_alone(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    watched(server, TABLE, KEYED, filter="state = 'done'")
    refuse(server, TABLE)
    write(server, TABLE, "bad-open", "good-open")
    write(server, TABLE, "bad-done", "good-done", state="done")
    go(server)
    until_rows(server, TABLE, "bad-done", "bad-open", "good-open")
    until_held(server, "bad-done")
    # What does not meet it any more is let go of, and stays.
    server.execute("UPDATE jobs SET state = 'open'")
    until_held(server)
    wait_for_cycles(server)
    assert rows(server, TABLE) == ["bad-done", "bad-open", "good-open"]


def test_a_row_that_was_renewed_is_let_go_of_and_stays(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad")
    go(server)
    until_held(server, "bad")
    server.execute("UPDATE jobs SET due = now() + interval '1 h'", "DROP TRIGGER refuse ON jobs")
    until_held(server)
    wait_for_cycles(server)
    assert rows(server, TABLE) == ["bad"]


def test_a_row_that_somebody_deletes_is_let_go_of(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad1", "bad2")
    go(server)
    until_held(server, "bad1", "bad2")
    # In one transaction: between two the worker may try both again.
    server.execute(
        "ALTER TABLE jobs DISABLE TRIGGER refuse; DELETE FROM jobs WHERE id = 'bad1';"
        " ALTER TABLE jobs ENABLE TRIGGER refuse"
    )
    until_held(server, "bad2")


def test_a_row_that_was_moved_is_found_again_where_it_is(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "gone")
    write(server, TABLE, "bad", due="-1 h")
    go(server)
    until_rows(server, TABLE, "bad")
    (before,) = until_held(server, "bad")
    server.execute("VACUUM FULL jobs")
    wait_until(lambda: held(server), lambda now: len(now) == 1 and now[0].tid != before.tid, "it to be found again")
    mend(server, TABLE)
    until_rows(server, TABLE)
    until_held(server)


def test_a_sweep_by_hand_isolates_too_and_tries_all_again(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    policy = watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad1", *(f"good{n}" for n in range(50)), "bad2")
    with server.connect() as session:
        said: list[str | None] = []
        session.add_notice_handler(lambda notice: said.append(notice.severity))
        assert session.execute("SELECT pg_reaper_sweep(policy => %s)", [policy]).fetchone() == (50,)
    assert said == ["WARNING", "WARNING"]
    assert [row.tries for row in until_held(server, "bad1", "bad2")] == [1, 1]
    assert sweep(server, policy) == 0
    assert [row.tries for row in held(server)] == [2, 2]
    mend(server, TABLE)
    assert sweep(server, policy) == 2
    assert (held(server), rows(server, TABLE)) == ([], [])


def test_what_a_transaction_isolated_is_rolled_back_with_it(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    policy = watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad", "good")
    with server.connect() as session:
        session.execute("BEGIN")
        assert session.execute("SELECT pg_reaper_sweep(policy => %s)", [policy]).fetchone() == (1,)
        assert session.execute("SELECT count(*) FROM pg_reaper_quarantine").fetchone() == (1,)
        session.execute("ROLLBACK")
    assert (keys(server), rows(server, TABLE)) == ([], ["bad", "good"])


def test_an_owner_without_rights_to_the_quarantine_fills_it_all_the_same(make_server: Callable[..., Server]) -> None:
    server = make_server(SLOW)
    server.execute(
        "CREATE ROLE app LOGIN",
        "GRANT ALL ON SCHEMA public TO app",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep, pg_reaper_preview TO app",
    )
    policy = watched(server, TABLE, KEYED)
    server.execute("ALTER TABLE jobs OWNER TO app")
    refuse(server, TABLE)
    write(server, TABLE, "bad", "good")
    assert sweep(server, policy, user="app") == 1
    assert keys(server) == ["bad"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        held(server, user="app")
    assert shown(server, policy, user="app") == []


def test_the_preview_leaves_out_what_the_next_pass_goes_round(make_server: Callable[..., Server]) -> None:
    server = make_server(SLOW)
    policy = watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad", "good")
    assert sorted(shown(server, policy)) == ["bad", "good"]
    assert sweep(server, policy) == 1
    write(server, TABLE, "new")
    assert shown(server, policy) == ["new"]
    server.execute("UPDATE pg_reaper_quarantine SET next_try = now()")
    assert shown(server, policy) == ["bad", "new"]


def test_an_extension_of_the_version_before_stops_at_the_row_as_it_did(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK, extension=False)
    server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper VERSION '0.1.0'")
    server.restart()
    adopted(server, TABLE)
    refuse(server, TABLE, "OLD.execution_id ~ '^bad'", "RAISE 'not this one'")
    arm(server, "bad", table=TABLE)
    go(server)
    wait_until(lambda: log.failures(server.log(), TABLE), bool, "the sweep to fail")
    server.execute("ALTER EXTENSION pg_reaper UPDATE")
    until_held(server, "bad", key="execution_id")
    arm(server, "good", table=TABLE)
    until_left(server, ["bad"], TABLE)


def test_rows_isolated_in_one_policy_are_no_business_of_another(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    server.execute(f"CREATE TABLE {TABLE} ({KEYED})", f"CREATE INDEX ON {TABLE} (due)")
    refuse(server, TABLE, "OLD.id ~ '^bad' AND OLD.state = 'done'")
    done = add(server, TABLE, filter="state = 'done'")
    opened = add(server, TABLE, filter="state = 'open'")
    write(server, TABLE, "bad1", "good1", state="done")
    write(server, TABLE, "bad2", "good2")
    go(server)
    until_leading(server)
    until_rows(server, TABLE, "bad1")
    assert (until_held(server, "bad1", policy=done) != [], keys(server, opened)) == (True, [])
    halt(server)
