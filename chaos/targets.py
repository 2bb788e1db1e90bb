"""Who can be hit: processes of one server, and no others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from harness import Server


def workers(server: Server, database: str) -> list[int]:
    """The workers in a database, its leader first."""
    rows = server.query(
        "SELECT a.pid FROM pg_stat_activity AS a LEFT JOIN pg_reaper_status() AS s ON s.pid = a.pid"
        " WHERE a.backend_type LIKE 'pg_reaper%%' AND a.datname = %s"
        " ORDER BY s.state = 'leader' DESC NULLS LAST, a.pid",
        [database], dbname=database,
    )  # fmt: skip
    return [pid for (pid,) in rows]


def in_a_batch(server: Server, database: str) -> list[int]:
    """The workers in a database that are held up by the witness of a deletion."""
    rows = server.query(
        "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper%%' AND datname = %s"
        " AND wait_event = 'PgSleep'",
        [database],
    )
    return [pid for (pid,) in rows]


def in_a_long_pass(connection: psycopg.Connection[Any]) -> bool:
    """Whether a worker in the session's database is in a batch, with more of them to come."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper%' AND wait_event = 'PgSleep'"
        " AND datname = current_database())"
        " AND (SELECT count(*) > 10 FROM public.pg_barrier_state WHERE expires_at < clock_timestamp())"
    ).fetchone()
    return row is not None and row[0]


def launchers(server: Server) -> list[int]:
    """The launcher."""
    rows = server.query("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper launcher%'")
    return [pid for (pid,) in rows]


def clients(server: Server) -> list[int]:
    """Every session of a client."""
    rows = server.query(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        " ORDER BY pid"
    )
    return [pid for (pid,) in rows]


def choose(pids: list[int], pick: float, favour_first: bool = False) -> int | None:
    """One of them; with ``favour_first`` it is the first in two cases of three."""
    if not pids:
        return None
    if favour_first:
        if pick < 2 / 3:
            return pids[0]
        pick = (pick - 2 / 3) * 3
    return pids[min(int(pick * len(pids)), len(pids) - 1)]


def send(server: Server, pid: int, what: signal.Signals) -> bool:
    """Sends a signal to a process, only if it is the server's; whether it is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if parent != server.pid:
            return False
        signal.pidfd_send_signal(handle, what)
        return True
    except (ProcessLookupError, OSError, AssertionError):
        return False
    finally:
        os.close(handle)


@contextmanager
def frozen(server: Server, pid: int) -> Iterator[bool]:
    """Stops a process of the server in its tracks, and lets it go on at the end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield False
        return
    try:
        yield send(server, pid, signal.SIGSTOP)
    finally:
        try:
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        except ProcessLookupError:
            pass
        os.close(handle)
