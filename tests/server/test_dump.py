"""pg_dump carries barriers and policies into another database, and never the lease."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from harness import Server, installation, wait_until
from scenery.barriers import BY_HAND, COLUMNS, arm
from scenery.policies import sweep, watched, write
from scenery.quarantine import keys, refuse

BARRIERS = "SELECT execution_id, organization_id, remaining, results, created_at, expires_at, last_progress_at FROM {}"


def program(name: str, *args: str, **kwargs: str) -> str:
    """Runs one of PostgreSQL's client programs."""
    done = subprocess.run([str(installation.bindir() / name), *args], capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def carry(server: Server, *options: str, source: str = "postgres", into: str = "copy", make: bool = True) -> str:
    """Dumps one database into another, a fresh one; an error in between is an error here. The dump."""
    dump = program("pg_dump", *options, server.dsn(source))
    if make:
        server.execute(f"CREATE DATABASE {into} TEMPLATE template0")
    program("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", server.dsn(into), input=dump)
    return dump


@pytest.fixture
def lived_in(make_server: Callable[..., Server]) -> Server:
    """A server with barriers, an adopted table in a schema of its own, and a lease that was held."""
    server = make_server(BY_HAND)
    server.execute(
        "CREATE SCHEMA app",
        f"CREATE TABLE app.jobs ({COLUMNS})",
        f"CREATE TABLE app.gone ({COLUMNS})",
        "SELECT pg_reaper_adopt('app.gone')",
        "SELECT pg_reaper_adopt('app.jobs')",
        "SELECT pg_reaper_disown('app.gone')",
        "UPDATE pg_reaper_lease SET leader = 'somebody', term = 42",
    )
    arm(server, "dead", "deader")
    arm(server, "alive", due="1 h")
    arm(server, "job", table="app.jobs")
    return server


def test_barriers_and_adopted_policies_are_carried_and_the_lease_is_not(lived_in: Server) -> None:
    carry(lived_in)
    barriers = BARRIERS.format("pg_barrier_state") + " ORDER BY 1"
    assert lived_in.query(barriers, dbname="copy") == lived_in.query(barriers)
    # The built-in policy once, the adopted one with its id, and nothing of the one disowned.
    policies = "SELECT id, relation::text, builtin FROM pg_reaper_policy ORDER BY id"
    assert lived_in.query(policies, dbname="copy") == [(1, "pg_barrier_state", True), (3, "app.jobs", False)]
    assert lived_in.query("SELECT leader, term FROM pg_reaper_lease", dbname="copy") == [("", 0)]


def test_what_was_restored_is_swept_and_goes_on_counting(lived_in: Server) -> None:
    carry(lived_in)
    assert lived_in.value("SELECT pg_reaper_sweep()", dbname="copy") == 3
    assert lived_in.query("SELECT execution_id FROM pg_barrier_state", dbname="copy") == [("alive",)]
    assert lived_in.value("SELECT pg_reaper_adopt('app.gone')", dbname="copy") == 4


@pytest.mark.parametrize("options", [["--format=plain"], ["--format=plain", "--no-owner", "--no-privileges"]])
def test_an_extension_in_a_schema_of_its_own_is_carried_there(make_server: Callable[..., Server], options: list[str]) -> None:
    server = make_server(BY_HAND, extension=False)
    server.execute(
        'CREATE SCHEMA "Reap er"',
        'CREATE EXTENSION pg_reaper SCHEMA "Reap er"',
        # A table of that name which was there before.
        f"CREATE TABLE pg_barrier_state ({COLUMNS})",
        """SELECT "Reap er".pg_reaper_adopt('public.pg_barrier_state')""",
    )
    server.execute("INSERT INTO public.pg_barrier_state VALUES ('theirs', '', 1, now())")
    server.execute(
        'INSERT INTO "Reap er".pg_barrier_state (execution_id, remaining, created_at, expires_at)'
        " VALUES ('ours', 1, '-infinity', now())"
    )
    carry(server, *options)
    assert server.value('SELECT "Reap er".pg_reaper_sweep()', dbname="copy") == 2
    assert server.query('SELECT relation::text FROM "Reap er".pg_reaper_policy ORDER BY id', dbname="copy") == [
        ('"Reap er".pg_barrier_state',),
        ("pg_barrier_state",),
    ]


def test_a_dump_of_a_dump_is_the_same(lived_in: Server) -> None:
    def told(dump: str) -> list[str]:
        # A dump may be wrapped in a key of its own since a minor release of 2025.
        return [line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]

    first = carry(lived_in)
    second = program("pg_dump", lived_in.dsn("copy"))
    assert told(second) == told(first)


def test_data_alone_is_carried_into_a_database_that_has_the_tables(lived_in: Server) -> None:
    lived_in.execute("CREATE DATABASE copy TEMPLATE template0")
    lived_in.execute(
        "CREATE EXTENSION pg_reaper", "CREATE SCHEMA app", f"CREATE TABLE app.jobs ({COLUMNS})",
        f"CREATE TABLE app.gone ({COLUMNS})", dbname="copy",
    )  # fmt: skip
    carry(lived_in, "--data-only", make=False)
    assert lived_in.value("SELECT pg_reaper_sweep()", dbname="copy") == 3


def test_a_restored_database_gets_its_worker(lived_in: Server) -> None:
    # The worker of the source leaves first, so that what is reaped is reaped in the copy.
    lived_in.set(**{"pg_reaper.databases": "copy"})
    wait_until(lived_in.worker_pids, lambda pids: pids == [], "the source to be without a worker")
    carry(lived_in)
    lived_in.set(**{"pg_reaper.enabled": "on"})
    wait_until(
        lambda: lived_in.query("SELECT execution_id FROM pg_barrier_state", dbname="copy"),
        lambda left: left == [("alive",)],
        "the restored orphans to be reaped",
    )
    wait_until(
        lambda: lived_in.query("SELECT execution_id FROM app.jobs", dbname="copy"), lambda left: left == [], "jobs, too"
    )
    assert lived_in.value("SELECT count(*) FROM pg_barrier_state") == 3


def test_the_quarantine_stays_behind_whose_rows_lie_elsewhere_in_a_copy(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    policy = watched(server, "jobs", "id text PRIMARY KEY, due timestamptz, state text")
    refuse(server, "jobs")
    write(server, "jobs", "bad")
    sweep(server, policy)
    assert keys(server) == ["bad"]
    carry(server)
    with server.connect("copy") as session:
        assert session.execute("SELECT count(*) FROM pg_reaper_quarantine").fetchone() == (0,)
        # It is found anew.
        session.execute("SELECT pg_reaper_sweep()")
        assert session.execute("SELECT key FROM pg_reaper_quarantine").fetchone() == ({"id": "bad"},)
