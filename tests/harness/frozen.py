"""Processes that stand still, as on a paused machine or behind a stalled disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.server import Server
from harness.waiting import wait_until


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stops a process in its tracks, and lets it go on at the end."""
    os.kill(pid, signal.SIGSTOP)
    try:
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0], "T".__eq__, f"{pid} to be stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def frozen_at_rest(server: Server, pid: int) -> Iterator[None]:
    """As ``frozen``, at a moment when the process holds no lock."""
    for _ in range(100):
        with frozen(pid):
            if server.value("SELECT count(*) FROM pg_locks WHERE pid = %s", [pid]) == 0:
                yield
                return
    raise AssertionError(f"{pid} is never at rest")
