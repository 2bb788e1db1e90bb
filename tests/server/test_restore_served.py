"""A dump that is restored into a running server whose worker starts in the middle of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Server, installation, wait_until
from harness.reaper import wait_for
from scenery.barriers import BUILTIN, BY_HAND, COLUMNS, arm, arm_many

ALIVE = ["alive 1", "alive 2"]
COPY = {"dbname": "copy"}


def program(name: str, *args: str, **kwargs: Any) -> str:
    """Runs one of PostgreSQL's client programs; what it complains of is an error."""
    done = subprocess.run([str(installation.bindir() / name), *args], capture_output=True, text=True, **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture
def source(make_server: Callable[..., Server]) -> Server:
    """Barriers dead and alive, and an adopted table of which a child's rows speak."""
    server = make_server(BY_HAND, name="source")
    server.execute(
        "CREATE SCHEMA app",
        f"CREATE TABLE app.jobs ({COLUMNS})",
        "CREATE INDEX ON app.jobs (expires_at)",
        "SELECT pg_reaper_adopt('app.jobs')",
        "UPDATE pg_reaper_lease SET leader = 'somebody', term = 42, acquired_at = 'infinity'",
    )
    for table in [BUILTIN, "app.jobs"]:
        arm_many(server, 3000, "now() - interval '1 h'", table=table, prefix="dead ")
        arm(server, *ALIVE, due="1 h", table=table)
    return server


@pytest.fixture
def served(make_server: Callable[..., Server]) -> Server:
    """A server whose worker is to serve the database ``copy``, which is empty as yet."""
    server = make_server({"pg_reaper.interval": "20ms"}, extension=False, name="served")
    server.execute("CREATE DATABASE copy TEMPLATE template0")
    server.set(**{"pg_reaper.databases": "copy"})
    return server


def left(server: Server) -> dict[str, list[str]]:
    return {table: [name for (name,) in server.query(f"SELECT execution_id FROM {table} ORDER BY 1", **COPY)]
            for table in [BUILTIN, "app.jobs"]}  # fmt: skip


def is_whole_and_at_work(server: Server) -> None:
    """All that was dumped is there but the dead, and the worker is its only leader."""
    wait_until(lambda: left(server), lambda now: now == {BUILTIN: ALIVE, "app.jobs": ALIVE}, "the dead to be reaped")
    policies = "SELECT id, relation::text, builtin FROM pg_reaper_policy ORDER BY id"
    assert server.query(policies, **COPY) == [(1, "pg_barrier_state", True), (2, "app.jobs", False)]
    worker = wait_for(server, "leader", database="copy", **COPY)
    assert server.query("SELECT leader, term FROM pg_reaper_lease", **COPY) == [(worker.leader, worker.term)]
    assert worker.term < 42
    # The keys and indexes, which come last in a dump.
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename IN ('jobs', 'pg_barrier_state')"
    assert server.value(indexes, **COPY) == 4
    arm(server, "late", table="app.jobs", **COPY)
    wait_until(lambda: left(server)["app.jobs"], lambda now: now == ALIVE, "the worker to go on")


@pytest.mark.parametrize("options", [[], ["--single-transaction"]], ids=["bit by bit", "at one stroke"])
def test_a_plain_dump_comes_whole_into_a_served_database(source: Server, served: Server, options: list[str]) -> None:
    dump = program("pg_dump", source.dsn())
    program("psql", "-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", *options, "-d", served.dsn("copy"), input=dump)
    is_whole_and_at_work(served)


@pytest.mark.parametrize(
    "options", [[], ["--jobs=2"], ["--single-transaction"]], ids=["alone", "parallel", "at one stroke"]
)
def test_an_archive_comes_whole_into_a_served_database(
    source: Server, served: Server, options: list[str], tmp_path: Path
) -> None:
    archive = str(tmp_path / "archive")
    program("pg_dump", "--format=custom", "-f", archive, source.dsn())
    program("pg_restore", "--exit-on-error", *options, "-d", served.dsn("copy"), archive)
    is_whole_and_at_work(served)
    # Once more, over what is there and served.
    program("pg_restore", "--exit-on-error", "--clean", "--if-exists", *options, "-d", served.dsn("copy"), archive)
    is_whole_and_at_work(served)


def test_a_worker_that_leads_in_the_middle_of_a_restore_does_no_harm(source: Server, served: Server) -> None:
    def restore(section: str) -> None:
        dump = program("pg_dump", f"--section={section}", source.dsn())
        program("psql", "-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", served.dsn("copy"), input=dump)

    restore("pre-data")
    # It is there before the rows and the list of what is watched, and sweeps before there is a key.
    wait_for(served, "leader", database="copy", **COPY)
    restore("data")
    wait_until(lambda: left(served), lambda now: now == {BUILTIN: ALIVE, "app.jobs": ALIVE}, "the dead to be reaped")
    restore("post-data")
    is_whole_and_at_work(served)
    assert wait_for(served, "leader", database="copy", **COPY).errors == 0


@pytest.mark.parametrize("how", ["at one stroke", "while off"])
def test_a_child_whose_key_is_made_last_is_restored_with_its_parents(source: Server, served: Server, how: str) -> None:
    # Had a dead parent been reaped before there is a key, its child would stay, and no key could be made.
    source.execute(
        "CREATE TABLE app.parts (job text REFERENCES app.jobs ON DELETE CASCADE)",
        "INSERT INTO app.parts SELECT execution_id FROM app.jobs",
    )
    dump = program("pg_dump", source.dsn())
    options = ["--single-transaction"] if how == "at one stroke" else []
    served.set(**{"pg_reaper.enabled": "off" if how == "while off" else "on"})
    program("psql", "-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", *options, "-d", served.dsn("copy"), input=dump)
    served.set(**{"pg_reaper.enabled": "on"})
    is_whole_and_at_work(served)
    assert served.query("SELECT job FROM app.parts ORDER BY 1", **COPY) == [(name,) for name in ALIVE]
