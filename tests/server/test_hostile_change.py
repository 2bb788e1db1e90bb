"""Tables that change between the look at them and the deed, and triggers that end the worker."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from scenery import log, mallory
from scenery.barriers import BUILTIN, BY_HAND, COLUMNS, arm, count, status, until_empty, until_leading

SUPERUSERS = "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolsuper"


@pytest.fixture
def hers(make_server: Callable[..., Server]) -> Server:
    """A server where Mallory's table is watched, and nobody sweeps yet."""
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    return server


def yesterday(server: Server, user: str = "postgres") -> psycopg.Connection:
    """A session whose snapshot stays as things are now."""
    session = server.connect(user=user, autocommit=False)
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.execute("SELECT count(*) FROM pg_class")
    return session


def test_a_sweep_does_not_run_the_triggers_of_a_new_owner_as_the_old_one(hers: Server) -> None:
    hers.execute(f"CREATE TABLE ours ({COLUMNS})", "SELECT pg_reaper_adopt('ours')")
    arm(hers, "bait", table="ours")
    session = yesterday(hers)
    hers.execute("GRANT CREATE ON SCHEMA public TO mallory", "ALTER TABLE ours OWNER TO mallory")
    mallory.trigger(hers, "ALTER ROLE mallory SUPERUSER;", table="public.ours")
    with pytest.raises(psycopg.Error) as refused:
        session.execute("SELECT pg_reaper_sweep('ours')")
    assert refused.value.sqlstate == "40001"
    assert "given to another owner" in str(refused.value)
    session.rollback()
    assert hers.value(SUPERUSERS) == ["postgres"]
    assert count(hers, "ours") == 1


def test_a_table_that_was_taken_from_her_can_not_be_adopted_from_an_old_snapshot(hers: Server) -> None:
    hers.execute(f"CREATE TABLE hers.other ({COLUMNS})", user="mallory")
    session = yesterday(hers, "mallory")
    hers.execute("ALTER TABLE hers.other OWNER TO postgres")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT pg_reaper_adopt('hers.other')")
    session.rollback()
    assert hers.value("SELECT count(*) FROM pg_reaper_policy WHERE relation = 'hers.other'::regclass") == 0


def test_a_trigger_that_makes_its_error_fatal_does_not_keep_the_worker_from_the_others(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    until_leading(server)
    mallory.moves_in(server)
    mallory.trigger(server, "PERFORM set_config('exit_on_error', 'on', true); RAISE 'die';")
    mallory.orphan(server)
    wait_until(
        lambda: log.warnings(server.log(), "alone for a while: a function of it has ended the worker, 2 times in a row"),
        bool,
        "the table to be left alone, for longer",
    )
    arm(server, "innocent")
    until_empty(server, BUILTIN)
    assert "a function of the table" in status(server)["last_error"]
    # Nobody who asks the worker to end is taken for a culprit.
    server.execute("DROP TRIGGER evil ON hers.jobs")
    until_empty(server, mallory.TABLE)
    mark = server.log_mark()
    (worker,) = server.worker_pids()
    server.execute(f"SELECT pg_terminate_backend({worker})")
    wait_until(server.worker_pids, lambda pids: pids not in ([], [worker]), "a successor")
    assert log.warnings(server.log_since(mark), "a function of") == []
