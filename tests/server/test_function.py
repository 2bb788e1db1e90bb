"""pg_reaper_sweep(): one sweep in the caller's transaction, for those who may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import Server, wait_until
from scenery.barriers import BUILTIN, BY_HAND, adopted, arm, arm_many, count, ids


@pytest.fixture
def by_hand(make_server: Callable[..., Server]) -> Server:
    """A server whose worker leaves everything to the function, and where a row that fails fails its table."""
    return make_server({**BY_HAND, "pg_reaper.log_limit": "0", "pg_reaper.quarantine_limit": "0"})


def refuse(server: Server, table: str, name: str) -> None:
    """One row of a table cannot be deleted."""
    server.execute(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not %', OLD.execution_id USING ERRCODE = 'check_violation'; END $$",
        f"CREATE TRIGGER refuse BEFORE DELETE ON {table} FOR EACH ROW"
        f" WHEN (OLD.execution_id = '{name}') EXECUTE FUNCTION refuse()",
    )


class Caller:
    """A session that collects what it is told."""

    def __init__(self, server: Server, **where: Any) -> None:
        self.session = server.connect(**where)
        self.told: list[tuple[str | None, str]] = []
        self.session.add_notice_handler(lambda n: self.told.append((n.severity, n.message_primary or "")))

    def sweep(self, *args: Any) -> int:
        """Calls the function with these arguments."""
        places = ", ".join(["%s"] * len(args))
        row = self.session.execute(f"SELECT public.pg_reaper_sweep({places})", args).fetchone()
        assert row is not None
        return int(row[0])


def test_a_caller_who_rolls_back_undoes_the_sweep(by_hand: Server) -> None:
    arm(by_hand, "a", "b")
    caller = by_hand.connect(autocommit=False)
    assert caller.execute("SELECT pg_reaper_sweep()").fetchone() == (2,)
    assert caller.execute("SELECT count(*) FROM pg_barrier_state").fetchone() == (0,)
    caller.rollback()
    assert ids(by_hand) == ["a", "b"]


def test_a_caller_who_commits_keeps_it_with_all_else_that_was_done(by_hand: Server) -> None:
    by_hand.execute("CREATE TABLE work (n int)")
    arm(by_hand, "a")
    caller = by_hand.connect(autocommit=False)
    caller.execute("INSERT INTO work VALUES (1)")
    assert caller.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)
    caller.execute("INSERT INTO work VALUES (2)")
    caller.commit()
    assert (ids(by_hand), count(by_hand, "work")) == ([], 2)


def test_an_error_in_one_table_is_a_warning_and_leaves_the_others_reaped(by_hand: Server) -> None:
    adopted(by_hand, "public.jobs")
    adopted(by_hand, "public.others")
    refuse(by_hand, "jobs", "stubborn")
    arm(by_hand, "x")
    arm(by_hand, "stubborn", table="jobs")
    arm(by_hand, "y", table="others")
    caller = Caller(by_hand)
    assert caller.sweep() == 2
    assert ("WARNING", "sweep of public.jobs failed: not stubborn") in caller.told
    assert (count(by_hand), ids(by_hand, "jobs"), count(by_hand, "others")) == (0, ["stubborn"], 0)


def test_an_error_in_the_table_that_was_asked_for_is_an_error(by_hand: Server) -> None:
    adopted(by_hand, "public.jobs")
    refuse(by_hand, "jobs", "stubborn")
    arm(by_hand, "stubborn", table="jobs")
    with pytest.raises(psycopg.errors.CheckViolation, match="not stubborn"):
        Caller(by_hand).sweep("jobs")


def test_rows_reaped_before_a_batch_fails_are_counted(by_hand: Server) -> None:
    by_hand.set(**{"pg_reaper.batch_size": 1})
    refuse(by_hand, BUILTIN, "b1")
    # b1 expired last: the nine others are reaped in batches before it.
    arm_many(by_hand, 10, "now() - n * interval '1 min'")
    caller = Caller(by_hand)
    assert caller.sweep() == 9
    assert ids(by_hand) == ["b1"]


def test_max_rows_holds_though_a_table_before_has_failed(by_hand: Server) -> None:
    by_hand.set(**{"pg_reaper.batch_size": 1})
    adopted(by_hand, "public.jobs")
    refuse(by_hand, BUILTIN, "b1")
    arm_many(by_hand, 3, "now() - n * interval '1 min'")
    arm(by_hand, *"abcdef", table="jobs")
    caller = Caller(by_hand)
    assert caller.sweep(None, 5) == 5
    assert count(by_hand) + count(by_hand, "jobs") == 9 - 5


def test_tables_of_others_are_passed_over_with_a_notice(by_hand: Server) -> None:
    by_hand.execute(
        "CREATE ROLE alice LOGIN",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO alice",
        "CREATE SCHEMA hers AUTHORIZATION alice",
    )
    adopted(by_hand, "hers.jobs")
    by_hand.execute("ALTER TABLE hers.jobs OWNER TO alice")
    arm(by_hand, "x")
    arm(by_hand, "y", table="hers.jobs")
    alice = Caller(by_hand, user="alice")
    assert alice.sweep() == 1
    assert ("NOTICE", "passing over table public.pg_barrier_state, whose owner you are not") in alice.told
    assert (ids(by_hand), ids(by_hand, "hers.jobs")) == (["x"], [])
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        alice.sweep("pg_barrier_state")
    assert refused.value.diag.message_primary == "must be owner of table public.pg_barrier_state"


def test_a_member_of_the_owning_role_may_sweep(by_hand: Server) -> None:
    by_hand.execute(
        "CREATE ROLE team",
        "CREATE ROLE bob LOGIN IN ROLE team",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO team",
        "ALTER TABLE pg_barrier_state OWNER TO team",
    )
    arm(by_hand, "x")
    assert Caller(by_hand, user="bob").sweep("pg_barrier_state") == 1


@pytest.mark.parametrize(
    "call", ["pg_reaper_sweep()", "pg_reaper_adopt('pg_class')", "pg_reaper_disown('pg_class')", "pg_reaper_status()"]
)
def test_nobody_may_call_who_was_not_let(by_hand: Server, call: str) -> None:
    by_hand.execute("CREATE ROLE alice LOGIN")
    with by_hand.connect(user="alice") as alice, pytest.raises(psycopg.errors.InsufficientPrivilege):
        alice.execute(f"SELECT {call}")


def test_a_monitor_may_see_the_status_and_nothing_else(by_hand: Server) -> None:
    by_hand.execute("CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
    with by_hand.connect(user="watcher") as watcher:
        seen = lambda: watcher.execute("SELECT count(*) FROM pg_reaper_status()").fetchone()  # noqa: E731
        wait_until(seen, (1,).__eq__, "the worker to be seen")
        assert watcher.execute("SELECT count(*) FROM pg_reaper_lease").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watcher.execute("SELECT pg_reaper_sweep()")


@pytest.mark.parametrize("arguments", [[], ["pg_barrier_state"]])
def test_a_read_only_transaction_is_told_so_clearly(by_hand: Server, arguments: list[str]) -> None:
    arm(by_hand, "x")
    caller = Caller(by_hand)
    caller.session.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        caller.sweep(*arguments)
    assert ids(by_hand) == ["x"]


def test_a_negative_bound_is_refused(by_hand: Server) -> None:
    arm(by_hand, "x")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_rows must not be negative, but is -1"):
        Caller(by_hand).sweep(None, -1)


def test_two_sweeps_at_once_share_the_rows_between_them(by_hand: Server) -> None:
    arm_many(by_hand, 100, "now() - n * interval '1 s'")
    one, two = (by_hand.connect(autocommit=False) for _ in range(2))
    (first,) = one.execute("SELECT pg_reaper_sweep(max_rows => 30)").fetchone() or (0,)
    (second,) = two.execute("SELECT pg_reaper_sweep()").fetchone() or (0,)
    one.commit()
    two.commit()
    assert (first, second, count(by_hand)) == (30, 70, 0)


def test_it_sees_what_its_own_transaction_has_written(by_hand: Server) -> None:
    caller = by_hand.connect(autocommit=False)
    caller.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('mine', 1, '-infinity', clock_timestamp() - interval '1 s')"
    )
    assert caller.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)


def test_it_works_within_a_function_a_savepoint_and_a_cursor(by_hand: Server) -> None:
    by_hand.execute(
        "CREATE FUNCTION nightly() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN"
        " BEGIN PERFORM pg_reaper_sweep(); RAISE 'undo'; EXCEPTION WHEN raise_exception THEN NULL; END;"
        " RETURN pg_reaper_sweep(); END $$"
    )
    arm(by_hand, "x")
    assert by_hand.value("SELECT nightly()") == 1
    arm_many(by_hand, 5, "now() - n * interval '1 s'")
    caller = by_hand.connect(autocommit=False)
    caller.execute("DECLARE c CURSOR FOR SELECT pg_reaper_sweep(max_rows => 1) FROM generate_series(1, 9)")
    assert caller.execute("FETCH ALL FROM c").fetchall() == [(1,)] * 5 + [(0,)] * 4
