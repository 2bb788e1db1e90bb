"""Who may do what with policies; what a preview shows, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server
from scenery.barriers import BY_HAND, adopted
from scenery.policies import COLUMNS, add, alter, rows, shown, sweep, watched, write

REFUSED = psycopg.errors.InsufficientPrivilege
FUNCTIONS = "pg_reaper_add_policy, pg_reaper_alter_policy, pg_reaper_drop_policy, pg_reaper_preview, pg_reaper_sweep"


@pytest.fixture
def by_hand(make_server: Callable[..., Server]) -> Server:
    """A server whose worker sweeps nothing, where Alice owns a table that is watched."""
    server = make_server(BY_HAND)
    server.execute(
        "CREATE ROLE alice LOGIN", "CREATE ROLE bob LOGIN", "CREATE ROLE clerk LOGIN", "GRANT pg_monitor TO clerk",
        f"GRANT EXECUTE ON FUNCTION {FUNCTIONS} TO alice, bob",
        "CREATE SCHEMA hers AUTHORIZATION alice", "GRANT USAGE ON SCHEMA hers TO PUBLIC",
    )  # fmt: skip
    server.execute(f"CREATE TABLE hers.jobs ({COLUMNS})", "CREATE INDEX ON hers.jobs (due)", user="alice")
    return server


def test_the_owner_decides_and_nobody_else(by_hand: Server) -> None:
    by_hand.execute("GRANT ALL ON hers.jobs TO bob")
    policy = add(by_hand, "hers.jobs", user="alice")
    write(by_hand, "hers.jobs", "dead")
    for statement in (
        "SELECT pg_reaper_add_policy('hers.jobs', 'due')",
        f"SELECT pg_reaper_alter_policy({policy}, ttl => '1 h')",
        f"SELECT pg_reaper_drop_policy({policy})",
        f"SELECT * FROM pg_reaper_preview({policy})",
        f"SELECT pg_reaper_sweep(policy => {policy})",
        "SELECT pg_reaper_sweep('hers.jobs')",
    ):
        with pytest.raises(REFUSED, match="must be owner of table hers.jobs"):
            by_hand.query(statement, user="bob")
    # Of what is not his he is shown nothing, and reaps nothing.
    assert by_hand.query("SELECT * FROM pg_reaper_preview()", user="bob") == []
    assert by_hand.value("SELECT pg_reaper_sweep()", user="bob") == 0
    assert by_hand.value("SELECT count(*) FROM pg_reaper_preview()", user="alice") == 1
    by_hand.execute(f"SELECT pg_reaper_alter_policy({policy}, name => 'mine')", user="alice")
    assert sweep(by_hand, policy, user="alice") == 1
    by_hand.execute(f"SELECT pg_reaper_drop_policy({policy})", user="alice")


def test_without_the_right_to_run_them_the_functions_are_nobodys(by_hand: Server) -> None:
    by_hand.execute(f"REVOKE EXECUTE ON FUNCTION {FUNCTIONS} FROM alice")
    for call in ("add_policy('hers.jobs', 'due')", "alter_policy(1)", "drop_policy(1)", "preview()", "suspended()"):
        with pytest.raises(REFUSED, match="permission denied for function"):
            by_hand.query(f"SELECT pg_reaper_{call}", user="alice")
    with pytest.raises(REFUSED, match="permission denied for view"):
        by_hand.query("SELECT * FROM pg_reaper_policies", user="alice")


def test_a_monitor_sees_the_policies_and_no_rows(by_hand: Server) -> None:
    policy = add(by_hand, "hers.jobs", filter="state = 'secret'", user="alice")
    by_hand.execute("ALTER TABLE hers.jobs RENAME due TO was_due")
    found = by_hand.query("SELECT policy, suspended FROM pg_reaper_policies ORDER BY 1", user="clerk")
    assert found == [(1, None), (policy, 'table hers.jobs has no column "due"')]
    with pytest.raises(REFUSED):
        by_hand.query("SELECT * FROM pg_reaper_preview()", user="clerk")


def test_a_preview_shows_what_a_sweep_would_reap_and_why(by_hand: Server) -> None:
    plain = watched(by_hand, "jobs", filter="state = 'done'")
    later = add(by_hand, "jobs", ttl="1 day")
    adopted(by_hand, "public.barriers")
    barriers = by_hand.value("SELECT id FROM pg_reaper_policy WHERE relation = 'barriers'::regclass")
    write(by_hand, "jobs", "done", state="done")
    write(by_hand, "jobs", "old", due="-2 days")
    write(by_hand, "jobs", "later", state="done", due="1 h")
    by_hand.execute(
        "INSERT INTO barriers VALUES ('dead', '', 1, now() - interval '1 min', now()), ('alive', '', 1, 'infinity', now()),"
        " ('stuck', '', 1, 'infinity', now() - interval '1 h')"
    )
    alter(by_hand, barriers, stuck_timeout="30 min")
    found = by_hand.query(
        "SELECT policy_id, relation::text, reason, coalesce(row_data ->> 'id', row_data ->> 'execution_id'),"
        " deadline < now(), tid FROM pg_reaper_preview()"
    )
    assert [row[:5] for row in found] == [
        (plain, "jobs", "past due", "done", True),
        (later, "jobs", "past due + '1 day'", "old", True),
        (barriers, "barriers", "no progress for 1800s", "stuck", True),
        (barriers, "barriers", "past expires_at", "dead", True),
    ]
    assert [row[5] for row in found][:2] == [tid for (tid,) in by_hand.query("SELECT ctid::text FROM jobs WHERE id <> 'later'")]
    assert by_hand.value("SELECT count(*) FROM pg_reaper_preview(max_rows => 3)") == 3
    assert by_hand.value("SELECT count(*) FROM pg_reaper_preview(max_rows => 0)") == 0
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        by_hand.query("SELECT * FROM pg_reaper_preview(max_rows => -1)")
    with pytest.raises(psycopg.errors.UndefinedObject):
        by_hand.query("SELECT * FROM pg_reaper_preview(4711)")
    assert by_hand.value("SELECT pg_reaper_sweep()") == len(found)


def test_a_preview_comes_before_a_policy_is_enabled(by_hand: Server) -> None:
    policy = watched(by_hand, "jobs", enabled=False)
    write(by_hand, "jobs", "dead")
    assert shown(by_hand, policy) == ["dead"]
    # What the next pass would reap is nothing of it.
    assert by_hand.query("SELECT * FROM pg_reaper_preview()") == []
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not enabled"):
        sweep(by_hand, policy)


def test_a_preview_of_one_broken_table_shows_the_others(by_hand: Server) -> None:
    broken = watched(by_hand, "jobs")
    watched(by_hand, "others")
    write(by_hand, "others", "dead")
    by_hand.execute("ALTER TABLE jobs DROP due")
    told: list[str] = []
    with by_hand.connect() as session:
        session.add_notice_handler(lambda n: told.append(n.message_primary or ""))
        assert session.execute("SELECT row_data ->> 'id' FROM pg_reaper_preview()").fetchall() == [("dead",)]
    assert told == ['nothing is shown of public.jobs: table public.jobs has no column "due"']
    with pytest.raises(psycopg.errors.UndefinedColumn):
        shown(by_hand, broken)


def test_a_preview_changes_nothing_and_takes_no_transaction_id(by_hand: Server) -> None:
    policy = watched(by_hand, "jobs", ttl="1 h", filter="state = 'done'", time_zone="Europe/Berlin")
    write(by_hand, "jobs", "dead", state="done", due="-1 year")
    with by_hand.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION READ ONLY")
        assert session.execute("SELECT count(*) FROM pg_reaper_preview(%s)", [policy]).fetchone() == (1,)
        assert session.execute("SELECT suspended FROM pg_reaper_policies WHERE policy = %s", [policy]).fetchone() == (None,)
        assert session.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)
        assert session.execute(
            "SELECT mode FROM pg_locks WHERE relation = 'jobs'::regclass AND pid = pg_backend_pid()"
        ).fetchall() == [("AccessShareLock",)]
        session.rollback()
    assert rows(by_hand, "jobs") == ["dead"]
