"""More workers in one database, to be rivals for its lease."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness import installation
from harness.reaper import statuses
from harness.server import Server
from harness.waiting import wait_until

SOURCE = Path(__file__).resolve().parents[1] / "isolation/twin.c"

# The server of a test with twins needs room for them.
ROOM = {"max_worker_processes": "40"}


@functools.cache
def library() -> Path:
    """``twin.c``, compiled for the PostgreSQL under test, where its servers can read it."""
    directory = installation.new_directory("pg_reaper-twin-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    compiled = directory / "twin.so"
    include = installation.pg_config("--includedir-server")
    command = [os.environ.get("CC", "cc"), "-O1", "-fPIC", "-shared", f"-I{include}", "-o", compiled, SOURCE]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"twin.c does not compile:\n{done.stdout}"
    return compiled


def start_twins(server: Server, count: int = 1) -> list[int]:
    """Starts rivals of the worker, and waits until each has turned a cycle; their process ids."""
    server.execute(
        f"CREATE OR REPLACE FUNCTION start_twin() RETURNS integer LANGUAGE c AS '{library()}', 'start_twin'"
    )
    pids = [server.value("SELECT start_twin()") for _ in range(count)]
    wait_until(
        lambda: [by_pid(server).get(pid) for pid in pids],
        lambda rows: all(row and row.last_cycle and row.last_cycle >= row.started_at for row in rows),
        "the twins to turn a cycle",
    )
    return pids


def by_pid(server: Server) -> dict[int, Any]:
    """The status of each living worker."""
    return {row.pid: row for row in statuses(server) if row.pid is not None}


def leaders(server: Server) -> list[int]:
    """The process ids of the workers that say they lead. There may never be two."""
    pids = [pid for pid, row in by_pid(server).items() if row.state == "leader"]
    assert len(pids) <= 1, f"more than one leader: {pids}"
    return pids


def wait_for_leader(server: Server, other_than: int = 0, timeout: float = 30) -> int:
    """Waits until one of the workers leads; its process id."""
    return wait_until(
        lambda: leaders(server),
        lambda pids: bool(pids) and pids != [other_than],
        "a leader" + (f" other than {other_than}" if other_than else ""),
        timeout,
    )[0]
