"""pg_upgrade carries barriers and policies into a newer PostgreSQL, and the worker goes on there.

``$PG_REAPER_OLD_PG_CONFIG`` names the pg_config of the older one; scripts/test-upgrade sets it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import Server, installation
from harness.reaper import barriers, lease, live, overdue, wait_for, wait_until_reaped
from scenery.barriers import COLUMNS, arm
from scenery.policies import until_rows

OLD_PG_CONFIG = os.environ.get("PG_REAPER_OLD_PG_CONFIG", "")

pytestmark = pytest.mark.skipif(
    not OLD_PG_CONFIG,
    reason="PG_REAPER_OLD_PG_CONFIG names no older PostgreSQL that has the extension: run scripts/test-upgrade",
)

CONFIG = {"pg_reaper.interval": "50ms", "pg_reaper.lease_duration": "2s"}
POLICIES = "SELECT id, relation::text, builtin FROM pg_reaper_policy ORDER BY id"


class Upgrade:
    """A server of the older PostgreSQL, and an empty data directory of the newer one."""

    def __init__(self, stack: ExitStack, new_config: str) -> None:
        self.stack = stack
        answer = subprocess.run([OLD_PG_CONFIG, "--bindir"], check=True, capture_output=True, text=True)
        self.programs = Path(answer.stdout.strip())
        self.directory = installation.new_directory("pg_reaper-upgrade-")
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.initdb(self.programs, "old")
        # Since 18 data is checksummed unless told otherwise, and both must be the same.
        plain = ["--no-data-checksums"] if installation.major_version() >= 18 else []
        self.initdb(installation.bindir(), "new", *plain)
        with (self.directory / "new/postgresql.conf").open("a") as conf:
            conf.write(f"fsync = off\n{new_config}")
        self.old = stack.enter_context(
            Server(CONFIG, data=self.directory / "old", programs=self.programs, name="old")
        )

    def initdb(self, programs: Path, data: str, *options: str) -> None:
        installation.run_as_server_user(
            [str(programs / "initdb"), "-D", str(self.directory / data), "-U", "postgres", "--auth=trust",
             "--encoding=UTF8", "--locale=C", "--no-sync", *options]
        )  # fmt: skip

    def pg_upgrade(self, *options: str) -> str:
        """Runs pg_upgrade from the old server's data to the new."""
        # It leaves a script in the folder that it is called in, and puts its sockets there.
        command = " ".join(
            ["cd", str(self.directory), "&&", "exec", str(installation.bindir() / "pg_upgrade"), "-U", "postgres",
             "-b", str(self.programs), "-d", str(self.old.data), "-B", str(installation.bindir()), "-D", "new",
             "-p", str(self.old.port), "-s", str(self.old.directory), *options]
        )  # fmt: skip
        try:
            return installation.run_as_server_user(["sh", "-c", command])
        except RuntimeError as error:
            # It only names the file that says why.
            raise RuntimeError(f"{error}\n{self.logs('pg_upgrade_dump_*.log')[-3000:]}") from error

    def logs(self, name: str = "pg_upgrade_server.log") -> str:
        """What both servers said while pg_upgrade ran them (it was told to ``--retain`` that), or what
        another of its logs says."""
        output = self.directory / "new/pg_upgrade_output.d"
        return "\n".join(path.read_text(errors="replace") for path in output.glob(f"*/log/{name}"))

    def new(self) -> Server:
        """The new server, running."""
        server = Server(CONFIG, data=self.directory / "new", extension=False, name="new")
        return self.stack.enter_context(server)


@pytest.fixture(params=["preloaded", "not preloaded"])
def upgrade(request: pytest.FixtureRequest) -> Iterator[Upgrade]:
    """Whether the new server's configuration has the library already, as a careful operator's has."""
    preload = "shared_preload_libraries = 'pg_reaper'\npg_reaper.interval = '20ms'\n"
    with ExitStack() as stack:
        yield Upgrade(stack, preload if request.param == "preloaded" else "")


only_preloaded = pytest.mark.parametrize("upgrade", ["preloaded"], indirect=True)


def lived_in(old: Server) -> None:
    """Barriers, an adopted table, one disowned, a grant, and nobody at work any more."""
    wait_for(old, "leader")
    old.execute(
        "CREATE ROLE tenant",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO tenant",
        f"CREATE TABLE gone ({COLUMNS})",
        "SELECT pg_reaper_adopt('gone')",
        f"CREATE TABLE jobs ({COLUMNS})",
        "CREATE INDEX ON jobs (expires_at)",
        "SELECT pg_reaper_adopt('jobs')",
        "SELECT pg_reaper_disown('gone')",
        # Functions have other numbers on the new server.
        "CREATE FUNCTION is_done(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done'",
        "CREATE TABLE sessions (id text, due timestamptz, state text)",
        "CREATE INDEX ON sessions (due)",
        "SELECT pg_reaper_add_policy('sessions', 'due', filter => 'is_done(state)')",
    )
    old.set(**{"pg_reaper.enabled": "off"})
    wait_for(old, "disabled")
    # Which is how they stay until the new server runs.
    live(old, "alive")
    overdue(old, "dead")
    arm(old, "job", table="jobs")
    arm(old, "long job", due="1 h", table="jobs")
    old.execute("INSERT INTO sessions VALUES ('over', now(), 'done'), ('open', now(), 'open')")


@only_preloaded
def test_the_check_passes_with_the_old_server_at_work(upgrade: Upgrade) -> None:
    wait_for(upgrade.old, "leader")
    assert "Clusters are compatible" in upgrade.pg_upgrade("--check")
    assert wait_for(upgrade.old, "leader").term == 1


def test_barriers_and_policies_are_carried_and_the_worker_is_at_work(upgrade: Upgrade) -> None:
    old = upgrade.old
    lived_in(old)
    policies = old.query(POLICIES)
    # Unlike a dump it carries the lease, since it carries every file; nobody is to wait for it.
    old.execute("UPDATE pg_reaper_lease SET leader = 'the old server', term = 42, acquired_at = clock_timestamp()")
    old.stop()
    upgrade.pg_upgrade()
    new = upgrade.new()
    assert policies == new.query(POLICIES) == [(1, "pg_barrier_state", True), (3, "jobs", False), (4, "sessions", False)]
    worker = wait_for(new, "leader")
    assert lease(new)[:2] == (worker.leader, 43)
    wait_until_reaped(new, "dead")
    wait_until_reaped(new, "job", table="jobs")
    assert barriers(new) == {"alive"}
    assert barriers(new, "jobs") == {"long job"}
    until_rows(new, "sessions", "open")
    # What is called by hand is there as well, for those who might call it.
    assert new.value("SELECT has_function_privilege('tenant', 'pg_reaper_sweep(regclass, bigint, bigint)', 'EXECUTE')")
    assert new.value("SELECT pg_reaper_sweep()") == 0
    assert new.value("SELECT pg_reaper_adopt('gone')") == 5
    new.execute("DROP EXTENSION pg_reaper", "CREATE EXTENSION pg_reaper")


@only_preloaded
def test_nobody_acts_while_the_upgrade_is_under_way(upgrade: Upgrade) -> None:
    old = upgrade.old
    lived_in(old)
    before = lease(old)
    old.stop()
    # From here on whoever runs would sweep: ALTER SYSTEM wrote that it is off.
    (old.data / "postgresql.auto.conf").write_text("")
    upgrade.pg_upgrade("--retain")
    said = [line for line in upgrade.logs().splitlines() if "pg_reaper " in line or "reaped " in line]
    assert said == []
    new = upgrade.new()
    assert wait_for(new, "leader").term == before.term + 1
    wait_until_reaped(new, "dead")
