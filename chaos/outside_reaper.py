"""The original's reaper, outside the server: a rival for a lease without terms.

It acquires when nobody leads or the stamp is older than its window, renews by its id, deletes
while it believes to lead, releases to ''. It pauses at random, now and then for longer than the
window: what it deletes then is not fenced by anybody, and is not held against pg_reaper.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg

from chaos.cluster import Cluster
from chaos.scene import Scene

ME = "outside:1"
WINDOW_SECONDS = 2.0


class OutsideReaper:
    """One such process, as a thread."""

    def __init__(self, cluster: Cluster, scene: Scene, seed: int) -> None:
        self.cluster, self.scene = cluster, scene
        self.rng = random.Random(f"{seed}/outside")
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="outside reaper")
        lease = scene.lease
        self.take = (
            f"UPDATE {lease} SET leader = '{ME}', acquired_at = clock_timestamp()"
            f" WHERE id = 1 AND (leader IN ('{ME}', '')"
            f" OR acquired_at < clock_timestamp() - interval '{WINDOW_SECONDS} s') RETURNING 1"
        )
        self.release = f"UPDATE {lease} SET leader = '' WHERE id = 1 AND leader = '{ME}'"
        self.delete = "DELETE FROM public.pg_barrier_state WHERE expires_at < now()"

    def start(self) -> None:
        """Begins."""
        self.thread.start()

    def stop(self) -> None:
        """Goes away without a word: the lease must be taken over."""
        self.over.set()
        self.thread.join(30)

    def _run(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self.cluster.connect(self.scene.database, "outside")
                with connection:
                    connection.execute("SET lock_timeout = '2s'")
                    while not self.over.is_set():
                        self._turn(connection)
            except psycopg.Error:
                self.over.wait(0.2)

    def _turn(self, connection: psycopg.Connection[Any]) -> None:
        """Leads for a while if it can, then leaves the field to pg_reaper for a while."""
        for _ in range(self.rng.randint(3, 15)):
            leads = connection.execute(self.take).fetchone() is not None
            long = self.rng.random() < 0.05
            self.over.wait(self.rng.uniform(2.0, 4.0) if long else self.rng.uniform(0.0, 0.2))
            if self.over.is_set():
                return
            if leads:
                connection.execute(self.delete)
            self.over.wait(self.rng.uniform(0.05, 0.4))
        if self.rng.random() < 0.6:
            connection.execute(self.release)
        self.over.wait(self.rng.uniform(2.0, 7.0))
