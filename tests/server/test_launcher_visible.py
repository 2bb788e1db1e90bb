"""What an operator sees of launcher and workers, without asking pg_reaper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Server, installation, wait_until
from harness.reaper import Gate, adoptable, overdue, wait_for
from scenery.fleet import make_database, until_leading


def title(pid: int) -> str:
    """How ``ps`` shows a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().rstrip()


def activity(server: Server, pid: int, **where: Any) -> dict[str, Any]:
    """The row of a process in ``pg_stat_activity``."""
    columns = ["datname", "application_name", "backend_type", "state", "query", "wait_event_type", "wait_event"]
    (row,) = server.query(f"SELECT {', '.join(columns)} FROM pg_stat_activity WHERE pid = %s", [pid], **where)
    return dict(zip(columns, row, strict=True))


def launcher(server: Server) -> int:
    pid = wait_until(server.launcher_pid, bool, "the launcher")
    assert pid is not None
    return pid


def test_each_has_a_type_of_its_own_and_the_worker_its_database(server: Server) -> None:
    make_database(server, "other")
    rows = until_leading(server, "other", "postgres")
    for name, row in rows.items():
        seen = activity(server, row.pid)
        assert (seen["backend_type"], seen["datname"]) == ("pg_reaper worker", name)
        assert seen["application_name"] == "pg_reaper"
    seen = activity(server, launcher(server))
    # It is connected to no database, so that it stands in nobody's way.
    assert (seen["backend_type"], seen["datname"]) == ("pg_reaper launcher", None)


def test_the_process_title_tells_database_and_state(server: Server) -> None:
    make_database(server, "my app")
    pid = until_leading(server, "my app")["my app"].pid

    def shows(state: str) -> None:
        wait_until(lambda: title(pid), lambda now: now == f"postgres: pg_reaper worker my app {state}", state)

    shows("leader")
    server.set(**{"pg_reaper.enabled": "off"})
    shows("disabled")
    server.execute("UPDATE pg_reaper_lease SET leader = 'outside', acquired_at = 'infinity'", dbname="my app")
    server.execute(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER never BEFORE UPDATE ON pg_reaper_lease FOR EACH ROW EXECUTE FUNCTION never()",
        dbname="my app",
    )
    server.set(**{"pg_reaper.enabled": "on"})
    shows("standby")
    assert title(launcher(server)) == "postgres: pg_reaper launcher"


def test_the_title_follows_a_renamed_database(server: Server) -> None:
    make_database(server, "old_name")
    until_leading(server, "old_name")
    server.execute("ALTER DATABASE old_name RENAME TO new_name")
    row = until_leading(server, "new_name")["new_name"]
    assert title(row.pid) == "postgres: pg_reaper worker new_name leader"


def test_while_it_sweeps_its_activity_names_the_table(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.lease_duration": "60s"})
    pid = wait_for(server, "leader").pid
    server.execute("CREATE SCHEMA app")
    adoptable(server, "app.jobs")
    gate = Gate(server, "gate", "app.jobs")
    overdue(server, "gate", table="app.jobs")
    assert gate.wait_for_arrival() == pid
    server.execute("CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
    seen = activity(server, pid, user="watcher")
    assert (seen["state"], seen["query"]) == ("active", "pg_reaper: sweep of app.jobs")
    gate.open()
    wait_until(
        lambda: activity(server, pid),
        lambda now: now["state"] == "idle" and "sweep" not in now["query"],
        "the worker to idle",
    )


@pytest.mark.parametrize("who", ["worker", "launcher"])
def test_what_it_waits_for_between_its_turns_has_a_name(make_server: Callable[..., Server], who: str) -> None:
    server = make_server({"pg_reaper.interval": "1s", "pg_reaper.lease_duration": "10s"})
    worker = wait_for(server, "leader").pid
    pid = worker if who == "worker" else launcher(server)
    named = {"worker": "PgReaperWorkerMain", "launcher": "PgReaperLauncherMain"}[who]
    expected = named if installation.major_version() >= 17 else "Extension"
    wait_until(
        lambda: activity(server, pid),
        lambda now: (now["wait_event_type"], now["wait_event"]) == ("Extension", expected),
        f"it to wait for {expected}",
    )
