"""``DROP DATABASE`` and its kin need a database without sessions: a worker there is no hindrance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg
import pytest

from harness import Server, installation, wait_until
from harness.reaper import AT_ONCE, PATIENT, status, wait_for
from scenery.fleet import make_database, until_leading, until_swept, workers

DEEDS = {
    "drop": "DROP DATABASE app",
    "rename": "ALTER DATABASE app RENAME TO renamed",
    "set tablespace": "ALTER DATABASE app SET TABLESPACE elsewhere",
    "template": "CREATE DATABASE copy TEMPLATE app",
    "template, by files": "CREATE DATABASE copy TEMPLATE app STRATEGY file_copy",
}
SLOW = "PERFORM pg_sleep(100);"
# Any number of cancellations does not end this one.
SWALLOWING = "LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;"
WAITING = "PERFORM FROM pg_replication_origin;"


class Stage(NamedTuple):
    """A server with a database that belongs to somebody ordinary, and the worker there."""

    server: Server
    worker: int

    def do(self, deed: str, user: str) -> None:
        """Does it plainly, and at once: PostgreSQL would wait for five seconds before it fails."""
        with psycopg.connect(**self.server.address(user=user), autocommit=True) as session:
            session.execute("SET statement_timeout = '8s'")
            session.execute(DEEDS[deed])


@pytest.fixture
def stage(make_server: Callable[..., Server]) -> Iterator[Stage]:
    """The worker of ``app`` leads, and its owner may make databases, and is no superuser."""
    # A batch left to itself takes 20 s.
    server = make_server(PATIENT)
    space = installation.new_directory("pg_reaper-space-")
    server.execute("CREATE ROLE owner LOGIN CREATEDB", f"CREATE TABLESPACE elsewhere LOCATION '{space}'",
                   "GRANT CREATE ON TABLESPACE elsewhere TO owner")  # fmt: skip
    make_database(server, "app", options="OWNER owner")
    server.execute("GRANT ALL ON pg_barrier_state, pg_reaper_lease TO owner", dbname="app")
    pid = until_leading(server, "app", "postgres")["app"].pid
    yield Stage(server, pid)
    server.stop("immediate")
    installation.run_as_server_user(["rm", "-rf", str(space)])


def busy(stage: Stage, body: str) -> None:
    """Has the worker be in the middle of a batch that does not end by itself."""
    stage.server.execute(
        f"CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN OLD; END $$",
        "CREATE TRIGGER stay BEFORE DELETE ON pg_barrier_state FOR EACH ROW"
        " WHEN (OLD.execution_id = 'stays') EXECUTE FUNCTION stay()",
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('stays', 1, now() - interval '1 h', now() - interval '1 s')",
        dbname="app",
    )
    inside = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    wait_until(
        lambda: stage.server.value(inside, [stage.worker]),
        lambda event: event in ("PgSleep", "relation"),
        "the worker to be in the trigger",
    )


each_deed = pytest.mark.parametrize("deed", DEEDS)
each_user = pytest.mark.parametrize("user", ["postgres", "owner"])


def came_true(stage: Stage, deed: str) -> None:
    """The deed was done, and whoever has the extension now is swept."""
    names = {name for (name,) in stage.server.query("SELECT datname FROM pg_database")}
    expected = {"drop": [], "rename": ["renamed"], "set tablespace": ["app"]}.get(deed, ["app", "copy"])
    assert names - {"postgres", "template0", "template1"} == set(expected)
    for name in expected:
        stage.server.execute("DROP TRIGGER IF EXISTS stay ON pg_barrier_state", dbname=name)
    rows = until_leading(stage.server, *expected)
    assert stage.worker not in {row.pid for row in rows.values()}
    until_swept(stage.server, *expected)


@each_user
@each_deed
def test_it_goes_through_while_the_worker_is_idle(stage: Stage, deed: str, user: str) -> None:
    stage.do(deed, user)
    came_true(stage, deed)


@each_user
@each_deed
def test_it_goes_through_in_the_middle_of_a_long_batch(stage: Stage, deed: str, user: str) -> None:
    busy(stage, SLOW)
    stage.do(deed, user)
    came_true(stage, deed)


@pytest.mark.parametrize("deed", ["drop", "template"])
def test_it_goes_through_though_a_trigger_swallows_every_cancellation(stage: Stage, deed: str) -> None:
    busy(stage, SWALLOWING)
    stage.do(deed, "owner")
    came_true(stage, deed)


@pytest.mark.parametrize("deed", ["drop", "rename"])
def test_it_goes_through_while_the_worker_waits_for_a_lock(stage: Stage, deed: str) -> None:
    # Of a catalogue that all databases share, so that the blocker needs no session in `app`.
    blocker = stage.server.connect(autocommit=False)
    blocker.execute("LOCK TABLE pg_replication_origin IN ACCESS EXCLUSIVE MODE")
    busy(stage, WAITING)
    stage.do(deed, "postgres")
    blocker.rollback()
    came_true(stage, deed)


def test_a_worker_that_was_made_to_leave_has_released_its_lease(stage: Stage) -> None:
    busy(stage, SLOW)
    stage.do("template", "owner")
    # The copy was made of what the worker left behind.
    assert stage.server.value("SELECT count(*) FROM pg_barrier_state", dbname="copy") == 1
    assert "pg_reaper released term 1: the worker is leaving" in stage.server.log()


@pytest.mark.parametrize("force", ["", "WITH (FORCE)"])
def test_ten_databases_in_a_row_are_dropped_at_once(make_server: Callable[..., Server], force: str) -> None:
    server = make_server({"max_worker_processes": "20"})
    names = [f"db_{n}" for n in range(10)]
    make_database(server, names[0])
    until_leading(server, names[0])
    for name in names[1:]:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {names[0]}")
    until_leading(server, *names)
    with server.connect() as session:
        session.execute("SET statement_timeout = '4s'")
        for name in names:
            session.execute(f"DROP DATABASE {name} {force}")
    wait_until(lambda: set(workers(server).values()), lambda left: left == {"postgres"}, "the workers to be gone")


@pytest.mark.parametrize(
    ("deed", "sqlstate"),
    [
        ("ALTER DATABASE app RENAME TO postgres", "42P04"),
        ("DROP DATABASE app", "55006"),
        ("ALTER DATABASE app RENAME TO other", "55006"),
        ("CREATE DATABASE copy TEMPLATE app", "55006"),
    ],
)
def test_a_deed_that_fails_costs_the_database_its_worker_for_a_moment_only(
    stage: Stage, deed: str, sqlstate: str
) -> None:
    session = stage.server.connect("app")
    with stage.server.connect(user="owner") as owner, pytest.raises(psycopg.Error) as failed:
        owner.execute(deed)
    assert failed.value.sqlstate == sqlstate
    wait_for(stage.server, "leader", AT_ONCE, database="app")
    assert session.execute("SELECT 1").fetchone() == (1,)
    until_swept(stage.server, "app")
    assert status(stage.server, "app").errors == 0
    assert "did not start" not in stage.server.log()
