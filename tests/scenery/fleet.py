"""Databases with workers of their own, and what the postmaster says of starting them."""

from __future__ import annotations

from typing import Any

from harness import Server, wait_until
from harness.reaper import wait_for
from scenery import log

# The postmaster tells of every worker that it starts, and of every one that ends.
TALKATIVE = {"log_min_messages": "debug1"}


def make_database(server: Server, name: str, extension: bool = True, options: str = "") -> None:
    """Creates a database, with the extension in it."""
    server.execute(f'CREATE DATABASE "{name}" {options}')
    if extension:
        server.execute("CREATE EXTENSION pg_reaper", dbname=name)


def workers(server: Server, database: str | None = None) -> dict[int, str]:
    """The workers that run, each with its database, or '' while it connects; of one database, or of all."""
    rows = server.query(
        "SELECT pid, coalesce(datname, '') FROM pg_stat_activity WHERE backend_type = 'pg_reaper worker'"
    )
    return {pid: name for pid, name in rows if database in (None, name)}


def served(server: Server) -> list[str]:
    """The databases that a worker runs in, one entry for each worker."""
    return sorted(workers(server).values())


def until_served(server: Server, databases: list[str], timeout: float = 30) -> None:
    """Waits until each of these databases has one worker, and no other has any."""
    wait_until(lambda: served(server), lambda now: now == sorted(databases), f"workers in {databases}", timeout)


def until_leading(server: Server, *databases: str, **where: Any) -> dict[str, Any]:
    """Waits until each of these databases has a worker that leads; their statuses."""
    return {name: wait_for(server, "leader", database=name, **where) for name in databases}


def left_in(server: Server, database: str) -> list[str]:
    """The barriers that are left in a database."""
    return [name for (name,) in server.query("SELECT execution_id FROM pg_barrier_state ORDER BY 1", dbname=database)]


def until_swept(server: Server, *databases: str, timeout: float = 30) -> None:
    """Arms an orphan in each of these databases, and waits until all are reaped."""
    for name in databases:
        server.execute(
            "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
            " VALUES ('orphan', 1, now() - interval '1 h', now() - interval '1 s')",
            dbname=name,
        )
    for name in databases:
        wait_until(lambda name=name: left_in(server, name), lambda left: not left, f"{name} to be swept", timeout)


def starts(server: Server, since: int = 0) -> int:
    """How many workers the postmaster has started. For a server that is ``TALKATIVE``."""
    line = 'starting background worker process "pg_reaper worker"'
    return [entry.message for entry in log.entries(server.log_since(since))].count(line)


def ends(server: Server, since: int = 0) -> int:
    """How many workers the postmaster has seen end. For a server that is ``TALKATIVE``."""
    return sum(
        entry.message.startswith('background worker "pg_reaper worker" (PID ') and " exited with" in entry.message
        for entry in log.entries(server.log_since(since))
    )


def until_all_are_known(server: Server, probes: int, since: int = 0) -> None:
    """Waits until so many workers have come and gone: each has found no extension."""
    wait_until(lambda: ends(server, since), lambda n: n >= probes, f"{probes} databases to be looked into")
