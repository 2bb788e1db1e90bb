"""A caller whose snapshot is old: what Mallory has changed since must not lend her its power."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import Server
from scenery import mallory
from scenery.barriers import BY_HAND, COLUMNS, adopted, arm, count


@pytest.fixture
def hers(make_server: Callable[..., Server]) -> Server:
    """A server where Mallory's table is watched, and nobody sweeps but by hand."""
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    return server


def old_session(server: Server) -> psycopg.Connection[Any]:
    """A superuser's transaction, looking at the database as it is now for as long as it lasts."""
    session = server.connect(autocommit=False)
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.execute("SELECT count(*) FROM pg_class, pg_barrier_state")
    return session


def test_a_table_given_away_since_is_not_swept_as_its_former_owner(hers: Server) -> None:
    adopted(hers, "hers.handed")
    arm(hers, "bait", table="hers.handed")
    session = old_session(hers)
    hers.execute("ALTER TABLE hers.handed OWNER TO mallory")
    mallory.trigger(hers, mallory.tries("UPDATE public.secret SET word = 'hers'"), table="hers.handed")
    # Whether it is refused or swept as hers: never as the superuser's that it was.
    session.execute("SELECT pg_reaper_sweep()")
    session.commit()
    assert {who for _, who, _ in mallory.diary(hers)} <= {"mallory"}
    assert hers.value("SELECT word FROM secret") == "xyzzy"
    # And the next sweep takes it as it is.
    hers.execute("SELECT pg_reaper_sweep()")
    assert count(hers, "hers.handed") == 0


def test_a_table_that_took_the_name_since_is_left_alone(hers: Server) -> None:
    mallory.orphan(hers)
    session = old_session(hers)
    hers.execute(
        "ALTER TABLE hers.jobs RENAME TO moved",
        f"CREATE TABLE hers.jobs ({COLUMNS})",
        "INSERT INTO hers.jobs VALUES ('not adopted', '', 1, now())",
        user="mallory",
    )
    session.execute("SELECT pg_reaper_sweep()")
    session.commit()
    assert count(hers, "hers.jobs") == 1
    hers.execute("SELECT pg_reaper_sweep()")
    assert (count(hers, "hers.jobs"), count(hers, "hers.moved")) == (1, 0)


def test_a_table_dropped_since_is_told_of_and_the_rest_is_swept(hers: Server) -> None:
    arm(hers, "innocent")
    session = old_session(hers)
    hers.execute("DROP TABLE hers.jobs")
    assert session.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)
    session.commit()
    assert count(hers) == 0
