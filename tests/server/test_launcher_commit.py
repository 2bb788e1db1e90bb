"""``CREATE EXTENSION`` starts its worker when it commits: by its own word, not by somebody's look around.

A database that was found to be without the extension is not looked into again for a minute at
least, so a worker that comes sooner was announced.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, wait_for
from scenery.fleet import (
    TALKATIVE, make_database, starts, until_all_are_known, until_leading, until_served, workers,
)  # fmt: skip


@pytest.fixture
def bare(make_server: Callable[..., Server]) -> Server:
    """A server whose only database is known to be without the extension."""
    server = make_server(TALKATIVE, extension=False)
    until_all_are_known(server, 1)
    assert workers(server) == {}
    return server


def test_the_worker_starts_at_the_commit_and_not_before(bare: Server) -> None:
    mark = bare.log_mark()
    session = bare.connect(autocommit=False)
    session.execute("CREATE EXTENSION pg_reaper")
    # Somebody else's comes and is served meanwhile.
    make_database(bare, "other")
    wait_for(bare, "leader", database="other", dbname="other")
    assert starts(bare, mark) == 1, "somebody looked before there was anything to see"
    session.commit()
    wait_for(bare, "leader", AT_ONCE)
    until_served(bare, ["other", "postgres"])
    assert starts(bare, mark) == 2


def test_a_creation_that_is_rolled_back_starts_nothing(bare: Server) -> None:
    mark = bare.log_mark()
    session = bare.connect(autocommit=False)
    session.execute("CREATE EXTENSION pg_reaper")
    session.rollback()
    # What this session commits afterwards is no announcement.
    session.execute("CREATE TABLE innocent ()")
    session.commit()
    # One that fails on its way, and one whose session ends.
    with pytest.raises(psycopg.errors.InvalidSchemaName):
        bare.execute("CREATE EXTENSION pg_reaper SCHEMA nowhere")
    session.execute("CREATE EXTENSION pg_reaper")
    session.close()
    make_database(bare, "other")
    wait_for(bare, "leader", database="other", dbname="other")
    assert starts(bare, mark) == 1


def test_a_creation_in_a_session_that_goes_on_is_announced_once(bare: Server) -> None:
    mark = bare.log_mark()
    with bare.connect() as session:
        session.execute("CREATE EXTENSION pg_reaper")
        wait_for(bare, "leader", AT_ONCE)
        session.execute("DROP EXTENSION pg_reaper")
        until_served(bare, [])
        session.execute("CREATE TABLE innocent ()")
        make_database(bare, "other")
        wait_for(bare, "leader", database="other", dbname="other")
        assert starts(bare, mark) == 2
        session.execute("CREATE EXTENSION pg_reaper")
        wait_for(bare, "leader", AT_ONCE)


def test_an_announcement_is_not_lost_on_a_worker_that_has_looked_just_before(bare: Server) -> None:
    launcher = bare.launcher_pid()
    assert launcher is not None
    # Somebody is sent to a new database, and has to wait before he can look.
    bare.execute("CREATE DATABASE new")
    session = bare.connect("new", autocommit=False)
    session.execute("LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE")
    waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'pg_extension'::regclass"
    wait_until(lambda: bare.query(waiting), bool, "somebody to look into it")
    # He finds nothing, and while the launcher does not know that yet, the extension is created.
    os.kill(launcher, signal.SIGSTOP)
    mark = bare.log_mark()
    session.rollback()
    until_all_are_known(bare, 1, mark)
    session.execute("CREATE EXTENSION pg_reaper")
    session.commit()
    os.kill(launcher, signal.SIGCONT)
    wait_for(bare, "leader", AT_ONCE, database="new", dbname="new")


def test_a_database_that_is_an_instant_old_is_heard_too(server: Server) -> None:
    # The launcher has not taken it up yet when it hears of it.
    for n in range(5):
        make_database(server, f"new {n}")
        wait_for(server, "leader", 4, database=f"new {n}")


def test_an_announcement_to_no_launcher_is_heard_by_the_next_one(bare: Server) -> None:
    launcher = bare.launcher_pid()
    assert launcher is not None
    os.kill(launcher, signal.SIGSTOP)
    bare.execute("CREATE EXTENSION pg_reaper")
    assert workers(bare) == {}
    os.kill(launcher, signal.SIGTERM)
    os.kill(launcher, signal.SIGCONT)
    until_leading(bare, "postgres")
