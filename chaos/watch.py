"""Watches from outside who leads, to tell the longest time without a leader."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from chaos.cluster import Cluster
from chaos.leases import PID
from chaos.outside_reaper import ME
from chaos.scene import Scene

POLL_SECONDS = 0.05

LED, NOBODY, BLIND, DOWN = "led", "nobody", "blind", "down"
# Nobody is to lead while pg_reaper.enabled is off.
OFF = "off"


@dataclass
class Gaps:
    """The longest times without a leader, from what was seen when. Pure."""

    overall: float = 0.0
    # While the server was up and its lease could be read.
    undisturbed: float = 0.0
    samples: dict[str, int] = field(default_factory=dict)
    _last_led: float | None = None
    _nobody_since: float | None = None

    def see(self, at: float, state: str) -> None:
        """Takes in one sight."""
        self.samples[state] = self.samples.get(state, 0) + 1
        if self._last_led is None or state == OFF:
            self._last_led = at
        self.overall = max(self.overall, at - self._last_led)
        if state == LED:
            self._last_led = at
        if self._nobody_since is not None and state in (LED, NOBODY):
            self.undisturbed = max(self.undisturbed, at - self._nobody_since)
        if state != NOBODY:
            self._nobody_since = None
        elif self._nobody_since is None:
            self._nobody_since = at


class Watch:
    """Polls one database's lease."""

    def __init__(self, cluster: Cluster, scene: Scene) -> None:
        self.cluster, self.scene = cluster, scene
        self.gaps = Gaps()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"watch of {scene.database}")
        self._connection: psycopg.Connection[Any] | None = None
        self._epoch = 0
        self._query = (
            "SELECT leader, clock_timestamp() - acquired_at < current_setting('pg_reaper.lease_duration')::interval,"
            " ARRAY(SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_reaper%')"
            f", current_setting('pg_reaper.enabled') = 'on' FROM {scene.lease}"
        )

    def start(self) -> None:
        """Begins."""
        self.thread.start()

    def stop(self) -> None:
        """Ends."""
        self.over.set()
        self.thread.join(30)

    def _run(self) -> None:
        while not self.over.wait(POLL_SECONDS):
            self.gaps.see(time.monotonic(), self._look())

    def _look(self) -> str:
        try:
            if self._connection is None or self._epoch != self.cluster.epoch:
                self._disconnect()
                self._connection, self._epoch = self.cluster.connect(self.scene.database, "watch")
                self._connection.execute("SET lock_timeout = '100ms'")
            row = self._connection.execute(self._query).fetchone()
        except psycopg.errors.LockNotAvailable:
            return BLIND
        except psycopg.Error:
            self._disconnect()
            return DOWN
        if row is None:
            return NOBODY
        leader, fresh, pids, enabled = row
        found = PID.search(leader)
        acts = leader == ME or (found is not None and int(found[1]) in pids and not _frozen(int(found[1])))
        if fresh and acts:
            return LED
        return NOBODY if enabled else OFF

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _frozen(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True
