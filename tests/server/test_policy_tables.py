"""Policies follow their tables: several on one, renamed, changed, dropped."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import status
from scenery import log
from scenery.barriers import BY_HAND, adopted, arm, until_left
from scenery.policies import COLUMNS, add, alter, rows, shown, suspended, sweep, until_rows, watched, write


def policies(server: Server) -> list[int]:
    """The ids of the policies but the built-in one."""
    return [policy for (policy,) in server.query("SELECT id FROM pg_reaper_policy WHERE NOT builtin ORDER BY id")]


def test_several_policies_on_one_table_each_reap_their_own(server: Server) -> None:
    server.execute("CREATE TABLE jobs (id text, due timestamptz, made timestamptz, state text)")
    server.execute("CREATE INDEX ON jobs (due)", "CREATE INDEX ON jobs (made)")
    add(server, "jobs", "due")
    add(server, "jobs", "made", ttl="1 day", filter="state = 'done'")
    add(server, "jobs", "made", ttl="30 days")
    server.execute(
        "INSERT INTO jobs VALUES ('due', now(), now(), ''), ('done', NULL, now() - interval '2 days', 'done'),"
        " ('old', NULL, now() - interval '31 days', ''), ('open', NULL, now() - interval '2 days', 'open'),"
        " ('just done', NULL, now(), 'done')"
    )
    until_rows(server, "jobs", "just done", "open")


def test_a_table_of_barriers_can_have_another_deadline_besides(server: Server) -> None:
    adopted(server, "public.jobs")
    policy = add(server, "jobs", "last_progress_at", ttl="1 day", filter="remaining = 0")
    arm(server, "barrier", table="public.jobs")
    arm(server, "finished", "fresh", due="1 h", remaining=0, table="public.jobs")
    arm(server, "alive", due="1 h", table="public.jobs")
    server.execute("UPDATE jobs SET last_progress_at = now() - interval '2 days' WHERE execution_id IN ('finished', 'alive')")
    until_left(server, ["alive", "fresh"], "public.jobs")
    # Barriers are told of one by one, other rows are not.
    assert set(log.until_told(server, "barrier")) == {"barrier"}
    # Each ends alone.
    server.query("SELECT pg_reaper_disown('jobs')")
    assert policies(server) == [policy]
    with pytest.raises(psycopg.errors.UndefinedObject):
        server.query("SELECT pg_reaper_disown('jobs')")


def test_a_policy_follows_its_table_when_it_or_its_schema_is_renamed(server: Server) -> None:
    server.execute("CREATE SCHEMA app")
    policy = watched(server, "app.jobs", filter="state = 'done'")
    server.execute("ALTER TABLE app.jobs RENAME TO chores", "ALTER SCHEMA app RENAME TO shop")
    write(server, "shop.chores", "dead", state="done")
    until_rows(server, "shop.chores")
    assert suspended(server, policy) is None


def test_a_policy_ends_with_its_table(server: Server) -> None:
    watched(server, "jobs")
    other = watched(server, "others")
    server.execute("DROP TABLE jobs")
    wait_until(lambda: policies(server), lambda left: left == [other], "the policy to end")
    assert "WARNING" not in server.log()


def test_a_drop_that_is_rolled_back_ends_nothing(server: Server) -> None:
    policy = watched(server, "jobs")
    with server.connect(autocommit=False) as session:
        session.execute("DROP TABLE jobs")
        session.rollback()
    write(server, "jobs", "dead")
    until_rows(server, "jobs")
    assert policies(server) == [policy]


@pytest.mark.parametrize(
    ("break_it", "reason", "heal_it"),
    [
        ("ALTER TABLE jobs RENAME due TO was_due", 'has no column "due"', "ALTER TABLE jobs RENAME was_due TO due"),
        (
            "ALTER TABLE jobs DROP due",
            'has no column "due"',
            "ALTER TABLE jobs ADD due timestamptz; SELECT pg_reaper_alter_policy({policy}, expires_column => 'due')",
        ),
        (
            "ALTER TABLE jobs ALTER due TYPE text",
            "has type text, which is no point in time",
            "ALTER TABLE jobs ALTER due TYPE timestamptz USING due::timestamptz",
        ),
        (
            "ALTER TABLE jobs ALTER due TYPE timestamp",
            "which is no point in time without a time zone",
            "ALTER TABLE jobs ALTER due TYPE timestamptz",
        ),
    ],
)
def test_a_column_that_is_dropped_or_retyped_suspends_its_policy_alone(
    server: Server, break_it: str, reason: str, heal_it: str
) -> None:
    policy = watched(server, "jobs")
    other = watched(server, "others")
    server.execute("ALTER TABLE jobs ADD made timestamptz DEFAULT now()", "CREATE INDEX ON jobs (made)")
    same_table = add(server, "jobs", "made", filter="state = 'done'")
    server.execute(break_it)
    assert reason in (suspended(server, policy) or "")
    assert (suspended(server, other), suspended(server, same_table)) == (None, None)
    server.execute("INSERT INTO jobs (id, state) VALUES ('dead', 'open'), ('done', 'done')")
    write(server, "others", "dead")
    until_rows(server, "others")
    until_rows(server, "jobs", "dead")
    # A pass that was under way then has found out in its own words.
    reports = wait_until(
        lambda: [f for f in log.failures(server.log(), f"public.jobs (policy {policy})") if reason in f.message],
        bool, "the report, which says which of the two it is",
    )
    assert reports[0].hint
    assert status(server).last_error.startswith(f"public.jobs (policy {policy}): ")
    with pytest.raises(psycopg.Error, match=reason.replace('"', ".")):
        sweep(server, policy)
    # It can be switched off as it is.
    alter(server, policy, enabled=False)
    with pytest.raises(psycopg.Error, match=reason.replace('"', ".")):
        alter(server, policy, enabled=True)
    server.execute("UPDATE pg_reaper_policy SET enabled = true")
    server.execute(heal_it.format(policy=policy), "UPDATE jobs SET due = now() - interval '1 s'")
    assert suspended(server, policy) is None
    until_rows(server, "jobs")
    healed = f"sweep of public.jobs (policy {policy}) goes through again"
    wait_until(server.log, lambda said: healed in said, "the log to say that it heals")


def test_a_suspended_policy_heals_within_an_interval_however_long_it_was(server: Server) -> None:
    policy = watched(server, "jobs")
    server.execute("ALTER TABLE jobs RENAME due TO was_due")
    # By now it is left alone for several seconds at a time.
    wait_until(lambda: len(log.failures(server.log(), "public.jobs")), lambda n: n >= 7, "the reports", timeout=60)
    server.execute("INSERT INTO jobs VALUES ('dead', now() - interval '1 s', '')")
    mark = server.log_mark()
    alter(server, policy, expires_column="was_due")
    until_rows(server, "jobs", timeout=5)
    assert log.failures(server.log_since(mark), "public.jobs") == []


def test_a_generated_column_can_hold_the_deadline_and_be_in_the_filter(server: Server) -> None:
    watched(
        server, "jobs",
        "id text, made timestamp, due timestamp GENERATED ALWAYS AS (made + interval '1 h') STORED,"
        " n int, even boolean GENERATED ALWAYS AS (n % 2 = 0) STORED",
        time_zone="UTC", filter="even",
    )  # fmt: skip
    server.execute(
        "INSERT INTO jobs (id, made, n) VALUES ('dead', now() AT TIME ZONE 'UTC' - interval '2 h', 2),"
        " ('odd', now() AT TIME ZONE 'UTC' - interval '2 h', 1), ('young', now() AT TIME ZONE 'UTC', 2)"
    )
    until_rows(server, "jobs", "odd", "young")


def test_row_security_hides_no_row_from_the_sweep(server: Server) -> None:
    server.execute(
        "CREATE ROLE alice LOGIN", f"CREATE TABLE jobs ({COLUMNS})", "CREATE INDEX ON jobs (due)",
        "ALTER TABLE jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE POLICY nobody ON jobs USING (false)", "ALTER TABLE jobs OWNER TO alice",
    )  # fmt: skip
    policy = add(server, "jobs", enabled=False)
    write(server, "jobs", "dead")
    assert shown(server, policy) == ["dead"]
    alter(server, policy, enabled=True)
    until_rows(server, "jobs")


def test_names_that_look_like_sql_are_only_names(server: Server) -> None:
    table = '"we""ird; DROP TABLE pg_barrier_state; --"."it\'s a $1 @deadline@ ""t"""'
    column = 'due"; $2 @also@ -- \' '
    quoted = '"' + column.replace('"', '""') + '"'
    server.execute('CREATE SCHEMA "we""ird; DROP TABLE pg_barrier_state; --"')
    server.execute(f"CREATE TABLE {table} (id text, {quoted} timestamptz, \"@filter@\" text, t text)")
    notices: list[str] = []
    with server.connect() as session:
        session.add_notice_handler(lambda n: notices.append(n.message_hint or ""))
        statement = """SELECT pg_reaper_add_policy(%s::regclass, %s, ttl => '1 s', filter => $$"@filter@" = '@also@' AND t = '@due@'$$, name => '@')"""
        (policy,) = session.execute(statement, [table, column]).fetchone()  # type: ignore[misc]
    # The hint is to be run as it is.
    (hint,) = notices
    server.execute(hint.partition("run ")[2].rstrip(";"))
    server.execute(f"INSERT INTO {table} VALUES ('dead', now() - interval '1 h', '@also@', '@due@'), ('x', now() - interval '1 h', '', '')")
    assert suspended(server, policy) is None
    until_rows(server, table, "x")
    assert log.warnings(server.log(), "failed") == []
    with server.connect() as session:
        session.add_notice_handler(lambda n: notices.append(n.message_primary or ""))
        session.execute("SELECT pg_reaper_alter_policy(%s, expires_column => %s)", [policy, column])
    assert notices == [hint]


def test_quoting_every_identifier_changes_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server({"quote_all_identifiers": "on"})
    policy = watched(server, "jobs", "id text, due date, state text", ttl="1 day", time_zone="UTC", filter="state = 'done'")
    server.execute("INSERT INTO jobs VALUES ('dead', '2020-01-01', 'done'), ('alive', '2020-01-01', 'open')")
    until_rows(server, "jobs", "alive")
    assert suspended(server, policy) is None


@pytest.mark.parametrize("by", ["worker", "hand"])
def test_an_owner_without_rights_is_reported_and_hurts_nobody_else(make_server: Callable[..., Server], by: str) -> None:
    server = make_server(BY_HAND)
    server.execute("CREATE ROLE alice")
    watched(server, "jobs")
    watched(server, "others")
    server.execute("ALTER TABLE jobs OWNER TO alice", "REVOKE DELETE ON jobs FROM alice")
    write(server, "jobs", "dead")
    write(server, "others", "dead")
    if by == "worker":
        server.set(**{"pg_reaper.enabled": "on"})
    else:
        server.execute("SELECT pg_reaper_sweep()")
    until_rows(server, "others")
    wait_until(lambda: log.failures(server.log(), "public.jobs"), bool, "the report")
    assert rows(server, "jobs") == ["dead"]
