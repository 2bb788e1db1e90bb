"""Tables, and policies, that become something else while a sweep waits for a lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import PATIENT, status, wait_for_cycles
from scenery.policies import COLUMNS, add, alter, change_while_it_waits, rows, suspended, sweep, until_rows, watched, write

# What a user may do to a policy so that a row which is due is not due any more.
SPARES = {
    "dropped": "pg_reaper_drop_policy({})",
    "switched off": "pg_reaper_alter_policy({}, enabled => false)",
    "later": "pg_reaper_alter_policy({}, ttl => '1 day')",
    "narrower": "pg_reaper_alter_policy({}, filter => $$state = 'done'$$)",
}


@pytest.mark.parametrize("leaf", ["partition", "child"])
def test_a_leaf_that_is_taken_away_is_not_swept_any_more(server: Server, leaf: str) -> None:
    if leaf == "partition":
        server.execute(f"CREATE TABLE jobs ({COLUMNS}) PARTITION BY LIST (state)")
        server.execute("CREATE TABLE old PARTITION OF jobs FOR VALUES IN ('open')", "CREATE INDEX ON jobs (due)")
        change = "ALTER TABLE jobs DETACH PARTITION old"
    else:
        server.execute(f"CREATE TABLE jobs ({COLUMNS})", "CREATE TABLE old () INHERITS (jobs)")
        server.execute("CREATE INDEX ON jobs (due)", "CREATE INDEX ON old (due)")
        change = "ALTER TABLE old NO INHERIT jobs"
    add(server, "jobs")
    write(server, "old", "first")
    until_rows(server, "old")
    change_while_it_waits(server, "old", f"INSERT INTO old VALUES ('kept', now(), 'open'); {change}")
    wait_for_cycles(server, 3)
    assert rows(server, "old") == ["kept"]


@pytest.mark.parametrize("change", ["ALTER due TYPE timestamp", "NO INHERIT jobs"])
@pytest.mark.parametrize("index", ["CREATE INDEX ON old (due)", "SELECT 1"], ids=["by an index", "by a scan"])
def test_a_caller_with_an_old_snapshot_is_told_what_has_changed_since(server: Server, change: str, index: str) -> None:
    server.set(**{"pg_reaper.enabled": "off"})
    table = "old" if "TYPE" in change else "jobs"
    server.execute(f"CREATE TABLE jobs ({COLUMNS})", f"CREATE TABLE old ({COLUMNS})", index)
    if table == "jobs":
        server.execute("ALTER TABLE old INHERIT jobs")
    policy = add(server, table)
    # In a local time of Tokyo, to which it would be compared, it is long past.
    write(server, "old", "kept", due="3 h" if "TYPE" in change else "-1 h")
    with server.connect() as session:
        session.execute("SET timezone = 'UTC'")
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT count(*) FROM pg_class")
        server.execute(f"SET timezone = 'UTC'; ALTER TABLE old {change}")
        session.execute("SET timezone = 'Asia/Tokyo'")
        with pytest.raises(psycopg.errors.SerializationFailure, match="detached, retyped"):
            session.execute("SELECT pg_reaper_sweep(policy => %s)", [policy])
    assert rows(server, "old") == ["kept"]


def test_a_leaf_that_comes_with_a_trigger_of_another_is_not_swept(server: Server) -> None:
    server.execute("CREATE ROLE mallory LOGIN", "CREATE SCHEMA hers AUTHORIZATION mallory")
    server.execute(
        f"CREATE TABLE hers.jobs ({COLUMNS}) PARTITION BY LIST (state)",
        "CREATE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN OLD; END $$",
        "CREATE TRIGGER evil BEFORE DELETE ON hers.jobs FOR EACH ROW EXECUTE FUNCTION hers.evil()",
        user="mallory",
    )
    policy = watched(server, "ours")
    write(server, "ours", "first")
    until_rows(server, "ours")
    attach = "ALTER TABLE hers.jobs ATTACH PARTITION ours FOR VALUES IN ('open')"
    change_while_it_waits(server, "ours", f"INSERT INTO ours VALUES ('dead', now(), 'open'); {attach}")
    wait_until(lambda: "a trigger" in (suspended(server, policy) or ""), description="the policy to be suspended")
    wait_for_cycles(server, 3)
    assert rows(server, "ours") == ["dead"]
    assert not server.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")


def test_a_deadline_that_becomes_a_local_time_is_not_compared_as_if_it_were_one_of_the_session(server: Server) -> None:
    policy = watched(server, "jobs")
    write(server, "jobs", "dead")
    until_rows(server, "jobs")
    write(server, "jobs", "live", due="3 h")
    change = "ALTER TABLE jobs ALTER due TYPE timestamp USING due AT TIME ZONE 'America/New_York'"
    change_while_it_waits(server, "jobs", f"INSERT INTO jobs VALUES ('dead', now()); {change}")
    wait_until(lambda: "has type timestamp" in (suspended(server, policy) or ""), description="the policy to be suspended")
    wait_for_cycles(server, 3)
    assert rows(server, "jobs") == ["dead", "live"]
    # It is swept again as soon as it can be told what the values mean.
    alter(server, policy, time_zone="America/New_York")
    until_rows(server, "jobs", "live")


def test_a_trigger_that_was_compiled_for_another_type_goes_on_with_the_new_one(server: Server) -> None:
    # What PL/pgSQL has planned for a column is wrong for the rest of the session once that has another type,
    # and the worker's session does not end.
    watched(server, "jobs", "id text, due timestamptz, state text DEFAULT 'open', number int DEFAULT 1")
    server.execute(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF OLD.number > 7 THEN RAISE 'more'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER look BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION look()",
    )
    write(server, "jobs", "before")
    until_rows(server, "jobs")
    server.execute("ALTER TABLE jobs ALTER number TYPE bigint")
    write(server, "jobs", "after")
    until_rows(server, "jobs")


def test_a_partition_whose_detaching_was_stopped_halfway_is_not_swept_any_more(server: Server) -> None:
    server.execute(f"CREATE TABLE jobs ({COLUMNS}) PARTITION BY LIST (state)", "CREATE INDEX ON jobs (due)")
    server.execute("CREATE TABLE old PARTITION OF jobs FOR VALUES IN ('open')")
    add(server, "jobs")
    write(server, "old", "first")
    until_rows(server, "old")
    with server.connect() as reader, server.connect() as session:
        reader.execute("BEGIN")
        reader.execute("SELECT FROM jobs")
        # Its first half is committed; the second waits for the reader.
        session.execute("SET statement_timeout = '3s'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("ALTER TABLE jobs DETACH PARTITION old CONCURRENTLY")
    assert server.value("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'old'::regclass")
    write(server, "old", "kept")
    wait_for_cycles(server, 3)
    assert rows(server, "old") == ["kept"]


@pytest.mark.parametrize("policy_is", SPARES)
def test_no_row_is_reaped_by_a_policy_as_it_was_before(server: Server, policy_is: str) -> None:
    policy = watched(server, "jobs")
    write(server, "jobs", "first")
    until_rows(server, "jobs")
    change = SPARES[policy_is].format(policy)
    change_while_it_waits(server, "jobs", f"INSERT INTO jobs VALUES ('kept', now()); SELECT {change}")
    wait_for_cycles(server, 3)
    assert rows(server, "jobs") == ["kept"]
    # That is nothing to be reported, and the worker goes on by the policy as it is.
    assert status(server).errors == 0
    if policy_is != "dropped":
        alter(server, policy, enabled=True, reset=["ttl", "filter"])
        until_rows(server, "jobs")


@pytest.mark.parametrize("policy_is", SPARES)
def test_no_row_is_reaped_by_hand_by_a_policy_as_it_was_before(
    make_server: Callable[..., Server], policy_is: str
) -> None:
    server = make_server({**PATIENT, "pg_reaper.enabled": "off"})
    policy = watched(server, "jobs")
    with server.connect() as session, ThreadPoolExecutor() as pool:
        session.execute("BEGIN")
        session.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        session.execute("INSERT INTO jobs VALUES ('kept', now())")
        swept = pool.submit(sweep, server, policy)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"
        wait_until(lambda: server.value(waits) or swept.done(), description="the sweep to wait")
        session.execute("SELECT " + SPARES[policy_is].format(policy))
        session.execute("COMMIT")
        with pytest.raises(psycopg.errors.SerializationFailure, match="altered or dropped"):
            swept.result()
    assert rows(server, "jobs") == ["kept"]
