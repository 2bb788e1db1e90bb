"""Foreign keys that are deferred unless told otherwise, as Django makes them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from scenery import log, mallory
from scenery.barriers import BY_HAND, count, status, until_empty


def child(server: Server, action: str) -> None:
    """A table of Mallory's whose rows refer to her barriers, checked at commit."""
    server.execute(
        "CREATE TABLE hers.tasks (job text NOT NULL REFERENCES hers.jobs"
        f" ON DELETE {action} DEFERRABLE INITIALLY DEFERRED)",
        user="mallory",
    )


def orphan_with_tasks(server: Server) -> None:
    """An orphan that two tasks refer to, and one without any."""
    server.execute(
        "BEGIN; INSERT INTO hers.jobs VALUES ('parent', '', 1, now()), ('childless', '', 1, now() - interval '1 s');"
        " INSERT INTO hers.tasks VALUES ('parent'), ('parent'); COMMIT"
    )


@pytest.fixture
def hers(make_server: Callable[..., Server]) -> Server:
    """A server where Mallory's table is watched, and nobody sweeps yet."""
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    return server


def test_the_worker_takes_along_what_a_deferred_key_cascades_to(hers: Server) -> None:
    child(hers, "CASCADE")
    orphan_with_tasks(hers)
    mallory.by_worker(hers)
    until_empty(hers, mallory.TABLE)
    assert count(hers, "hers.tasks") == 0
    assert log.failures(hers.log(), "hers.jobs") == []


def test_the_worker_reports_a_deferred_key_that_forbids_and_heals_once_the_children_go(hers: Server) -> None:
    hers.set(**{"pg_reaper.batch_size": 1, "pg_reaper.quarantine_limit": 0})
    child(hers, "NO ACTION")
    orphan_with_tasks(hers)
    mallory.by_worker(hers)
    (failure, *_) = wait_until(lambda: log.failures(hers.log(), "hers.jobs"), bool, "the report")
    assert "violates foreign key constraint" in failure.message
    assert failure.detail.startswith("SQLSTATE 23503")
    assert "cascade" in failure.hint
    # The batch before it stands, the forbidden one does not, and nothing claims that it was reaped.
    assert hers.query("SELECT execution_id FROM hers.jobs") == [("parent",)]
    assert set(log.until_told(hers, "childless")) == {"childless"}

    worker = status(hers)["pid"]
    hers.execute("DELETE FROM hers.tasks")
    until_empty(hers, mallory.TABLE)
    assert status(hers)["pid"] == worker


def test_a_constraint_trigger_that_defers_runs_at_once_in_the_worker(hers: Server) -> None:
    hers.execute(
        "CREATE FUNCTION hers.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO hers.diary VALUES (OLD.execution_id, current_user, session_user); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER note AFTER DELETE ON hers.jobs DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hers.note()",
        user="mallory",
    )
    mallory.orphan(hers)
    mallory.by_worker(hers)
    until_empty(hers, mallory.TABLE)
    assert mallory.diary(hers) == [("bait", "mallory", "postgres")]


def test_a_trigger_cannot_defer_its_deeds_until_the_sandbox_is_gone(hers: Server) -> None:
    # At commit the worker is itself again: a check put off until then would run with its power.
    hers.execute(
        "CREATE FUNCTION hers.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " ALTER ROLE mallory SUPERUSER; RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER zz_late AFTER DELETE ON hers.jobs DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hers.late()",
        user="mallory",
    )
    mallory.trigger(hers, "SET CONSTRAINTS ALL DEFERRED;")
    mallory.orphan(hers)
    mallory.by_worker(hers)
    (failure, *_) = wait_until(lambda: log.failures(hers.log(), "hers.jobs"), bool, "the report")
    assert "security-restricted operation" in failure.message
    assert hers.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") is False


def test_a_superuser_is_refused_to_sweep_anothers_deferred_table_by_hand(hers: Server) -> None:
    child(hers, "CASCADE")
    orphan_with_tasks(hers)
    with hers.connect() as session, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        session.execute("SELECT pg_reaper_sweep('hers.jobs')")
    assert refused.value.diag.message_primary == (
        "table hers.jobs has deferred constraints, and you are not its owner"
    )
    assert "Let its owner sweep it" in (refused.value.diag.message_hint or "")
    assert count(hers, mallory.TABLE) == 2


def test_its_owner_sweeps_it_by_hand_and_its_checks_wait_for_her_commit(hers: Server) -> None:
    child(hers, "NO ACTION")
    orphan_with_tasks(hers)
    with hers.connect(user="mallory", autocommit=False) as session:
        assert session.execute("SELECT pg_reaper_sweep('hers.jobs')").fetchone() == (2,)
        # Still deferred: she may put things right before she commits.
        session.execute("DELETE FROM hers.tasks")
        session.commit()
    assert count(hers, mallory.TABLE) == 0

    orphan_with_tasks(hers)
    with hers.connect(user="mallory", autocommit=False) as session:
        assert session.execute("SELECT pg_reaper_sweep('hers.jobs')").fetchone() == (2,)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            session.commit()
    assert count(hers, mallory.TABLE) == 2
