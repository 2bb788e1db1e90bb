"""Rows, triggers and people that would have the quarantine stop a sweep, or do worse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import status, wait_for_cycles
from scenery import log
from scenery.barriers import BY_HAND, adopted, arm, until_left
from scenery.policies import KEYED, add, go, rows, until_rows, watched, write
from scenery.quarantine import held, keys, refuse, until_held

TABLE = "public.jobs"
QUICK = {"pg_reaper.interval": "50ms", **BY_HAND}


@pytest.mark.parametrize(("name", "code"), [("query_canceled", "57014"), ("serialization_failure", "40001")])
def test_a_trigger_that_pretends_that_it_was_somebody_else_stops_nothing_for_long(
    make_server: Callable[..., Server], name: str, code: str
) -> None:
    server = make_server({"pg_reaper.batch_size": "8", **QUICK})
    watched(server, TABLE, KEYED)
    refuse(server, TABLE, complaint=f"RAISE 'as if' USING ERRCODE = '{name}'")
    write(server, TABLE, "bad", due="-1 h")
    write(server, TABLE, *(f"good{n}" for n in range(20)))
    go(server)
    until_rows(server, TABLE, "bad")
    (row,) = until_held(server, "bad")
    assert row.sqlstate == code
    # Nor does it when it is tried again.
    write(server, TABLE, "later")
    until_rows(server, TABLE, "bad")


def test_cancellations_that_nobody_asked_for_are_counted_as_errors(make_server: Callable[..., Server]) -> None:
    # As a trigger passes on the timeout of another server.
    server = make_server(QUICK)
    watched(server, TABLE, KEYED)
    refuse(server, TABLE, complaint="RAISE 'elsewhere' USING ERRCODE = 'query_canceled'")
    write(server, TABLE, *(f"bad{n}" for n in range(9)), due="-1 h")
    write(server, TABLE, "good")
    go(server)
    until_rows(server, TABLE, *(f"bad{n}" for n in range(9)))
    until_held(server, *(f"bad{n}" for n in range(9)))
    assert status(server).errors > 0
    assert "to make way for" not in server.log()


def test_a_lock_that_a_cascade_waits_for_stops_nothing_for_long(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.lock_timeout": "200ms", **QUICK})
    watched(server, TABLE, KEYED)
    server.execute("CREATE TABLE children (up text REFERENCES jobs ON DELETE CASCADE)")
    write(server, TABLE, "parent", due="-1 h")
    write(server, TABLE, *(f"good{n}" for n in range(20)))
    server.execute("INSERT INTO children VALUES ('parent')")
    with server.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM children FOR UPDATE")
        go(server)
        until_rows(server, TABLE, "parent")
        assert until_held(server, "parent")[0].sqlstate == "55P03"
        holder.execute("ROLLBACK")
    until_rows(server, TABLE)
    assert server.value("SELECT count(*) FROM children") == 0


def test_rows_that_a_trigger_keeps_do_not_stop_a_scan(make_server: Callable[..., Server]) -> None:
    # One slow row a batch, so that a visit comes to a small part of them.
    server = make_server({"pg_reaper.batch_size": "1", **QUICK})
    server.execute(
        "CREATE TABLE jobs (id text, due timestamptz)",
        "INSERT INTO jobs SELECT 'kept', now() - interval '1 h' FROM generate_series(1, 400)",
        "INSERT INTO jobs SELECT 'goes', now() - interval '1 h' FROM generate_series(1, 10)",
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_sleep(0.005); RETURN NULL; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON jobs FOR EACH ROW WHEN (OLD.id = 'kept') EXECUTE FUNCTION keep()",
    )
    add(server, "jobs")
    go(server)
    goes = "SELECT count(*) FROM jobs WHERE id = 'goes'"
    wait_until(lambda: server.value(goes), (0).__eq__, "the others to go", timeout=60)
    assert server.value("SELECT count(*) FROM jobs") == 400


def test_what_was_mended_by_hand_goes_with_a_reload(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.lease_duration": "60s", **QUICK})
    # A row that is left out, and takes so long to look at that the left edge is walked again after
    # more than a minute.
    server.execute(
        "CREATE FUNCTION meets(state text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " IF state = 'slow' THEN PERFORM pg_sleep(0.7); END IF; RETURN state <> 'slow'; END $$"
    )
    watched(server, TABLE, KEYED, filter="meets(state)")
    refuse(server, TABLE, "OLD.state = 'open'")
    write(server, TABLE, "bad", due="-2 h")
    write(server, TABLE, "slow", due="-1 h", state="slow")
    go(server)
    until_held(server, "bad")
    wait_for_cycles(server)
    # It lies elsewhere now, and is due by the same old deadline.
    server.execute("UPDATE jobs SET state = 'mended' WHERE id = 'bad'")
    server.reload()
    until_rows(server, TABLE, "slow")
    until_held(server)


def test_somebody_s_table_of_that_name_is_left_alone(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK, extension=False)
    server.execute(
        "SET client_min_messages = error", "CREATE EXTENSION pg_reaper VERSION '0.1.0'",
        "CREATE ROLE mallory LOGIN", "GRANT CREATE ON SCHEMA public TO mallory",
    )  # fmt: skip
    server.restart()
    server.execute(
        "CREATE TABLE public.pg_reaper_quarantine (policy bigint, relation regclass, tid tid, tries int,"
        " next_try timestamptz)",
        "CREATE FUNCTION rise() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN NULL; END $$",
        "CREATE TRIGGER rise BEFORE DELETE OR INSERT ON pg_reaper_quarantine FOR EACH STATEMENT EXECUTE FUNCTION rise()",
        user="mallory",
    )
    adopted(server, TABLE)
    arm(server, "dead", table=TABLE)
    go(server)
    until_left(server, [], TABLE)
    wait_for_cycles(server)
    assert server.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") is False
    assert log.warnings(server.log(), "failed") == []


def test_a_key_of_any_name_is_written_down(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute('CREATE TABLE jobs ("a@b@c" int PRIMARY KEY, due timestamptz)', "CREATE INDEX ON jobs (due)")
    add(server, "jobs")
    refuse(server, "jobs", "true", "RAISE 'no'")
    server.execute("INSERT INTO jobs VALUES (7, now())", "SELECT pg_reaper_sweep()")
    assert keys(server, key="a@b@c") == [7]


def test_a_table_of_any_name_has_its_rows_written_down(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK)
    name = '"/*key*/@key@"'
    server.execute(f"CREATE TABLE {name} ({KEYED})", f"CREATE INDEX ON {name} (due)")
    server.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
        f"CREATE TRIGGER refuse BEFORE DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    add(server, name)
    write(server, name, "bad")
    go(server)
    until_held(server, "bad")


def test_more_rows_than_are_written_at_once_are_all_written_down(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.log_limit": "0", **BY_HAND})
    watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, *(f"bad{n}" for n in range(1500)))
    assert server.value("SELECT pg_reaper_sweep()") == 0
    assert len(held(server)) == 1500
    assert len(rows(server, TABLE)) == 1500


def test_a_monitor_sees_how_many_there_are_and_not_what_they_say(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    policy = watched(server, TABLE, KEYED)
    refuse(server, TABLE)
    write(server, TABLE, "bad")
    server.execute("SELECT pg_reaper_sweep()", "CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
    seen = server.query("SELECT policy, relation, sqlstate, tries FROM pg_reaper_quarantine", user="watcher")
    assert seen == [(policy, "jobs", "P0001", 1)]
    assert server.query("SELECT quarantined FROM pg_reaper_policies WHERE policy = %s", [policy], user="watcher") == [(1,)]
    for column in ("key", "error"):
        may = "SELECT has_column_privilege('watcher', 'pg_reaper_quarantine', %s, 'SELECT')"
        assert server.value(may, [column]) is False
