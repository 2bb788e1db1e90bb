"""pg_dumpall carries a whole cluster, roles and grants with it, into a server that serves it at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from harness import Server, installation, wait_until
from harness.reaper import wait_for
from scenery.barriers import BUILTIN, BY_HAND, COLUMNS, arm

APP = {"dbname": "app"}


def lived_in(make_server: Callable[..., Server]) -> Server:
    """A server with a database of which a role owns the table that is watched."""
    server = make_server(BY_HAND, name="old")
    server.execute("CREATE ROLE tenant LOGIN", "CREATE DATABASE app TEMPLATE template0")
    server.execute(
        "CREATE EXTENSION pg_reaper",
        "CREATE SCHEMA hers AUTHORIZATION tenant",
        f"CREATE TABLE hers.jobs ({COLUMNS})",
        "ALTER TABLE hers.jobs OWNER TO tenant",
        "SELECT pg_reaper_adopt('hers.jobs')",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO tenant",
        "GRANT SELECT, INSERT ON pg_barrier_state TO tenant",
        "ALTER DATABASE app SET pg_reaper.log_limit = 7",
        **APP,
    )
    for table in [BUILTIN, "hers.jobs"]:
        arm(server, "dead", table=table, **APP)
        arm(server, "alive", due="1 h", table=table, **APP)
    arm(server, "elsewhere")
    return server


def carry(old: Server, new: Server, *options: str) -> list[str]:
    """Dumps one cluster into another that runs; the errors on the way.

    From a database of neither: nobody can drop the one that they are in.
    """
    if not new.query("SELECT 1 FROM pg_database WHERE datname = 'aside'"):
        new.execute("CREATE DATABASE aside TEMPLATE template0")
    dump = subprocess.run(
        [str(installation.bindir() / "pg_dumpall"), *options, "-d", old.dsn()],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    done = subprocess.run(
        [str(installation.bindir() / "psql"), "-Xq", "-o", "/dev/null", "-d", new.dsn("aside")],
        input=dump, capture_output=True, text=True,
    )  # fmt: skip
    return [line.rpartition("ERROR:  ")[2] for line in done.stderr.splitlines() if "ERROR" in line]


def is_swept(server: Server) -> None:
    """Only what is alive is left in the database that is served."""
    left = "SELECT execution_id FROM pg_barrier_state UNION ALL SELECT execution_id FROM hers.jobs"
    wait_until(lambda: server.query(left, **APP), lambda rows: rows == [("alive",)] * 2, "the dead to be reaped")
    wait_for(server, "leader", database="app", **APP)


def test_a_cluster_is_carried_with_its_roles_grants_and_settings_and_swept(make_server: Callable[..., Server]) -> None:
    old = lived_in(make_server)
    new = make_server({"pg_reaper.databases": "app"}, extension=False, name="new")
    # Only what every cluster has already.
    assert carry(old, new) == ['role "postgres" already exists']
    is_swept(new)
    # The one database is served; the other has what it had.
    assert new.value("SELECT execution_id FROM pg_barrier_state") == "elsewhere"
    # She may still do what she was let, and no more.
    hers = {**APP, "user": "tenant"}
    arm(new, "hers", due="1 h", **hers)
    assert new.value("SELECT pg_reaper_sweep('hers.jobs')", **hers) == 0
    may = "SELECT has_function_privilege('tenant', 'pg_reaper_{}(regclass)', 'EXECUTE')"
    assert new.value(may.format("adopt"), **APP) is False
    assert new.value("SHOW pg_reaper.log_limit", **APP) == "7"


def test_a_cluster_is_carried_over_one_that_is_served(make_server: Callable[..., Server]) -> None:
    old = lived_in(make_server)
    new = make_server({"pg_reaper.databases": "app"}, extension=False, name="new")
    carry(old, new)
    is_swept(new)
    # Each database is dropped, and each role but the one that does it.
    errors = ["current user cannot be dropped", 'role "postgres" already exists']
    assert carry(old, new, "--clean", "--if-exists") == errors
    is_swept(new)
