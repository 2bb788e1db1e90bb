"""Reads at the end what the surviving server remembers, and what every server has logged."""

from __future__ import annotations

import json

from harness import wait_until
from scenery.log import warnings

from chaos.cluster import Cluster
from chaos.ledger import Deletion, Entry, Facts, Left, Line, Move
from chaos.scene import Scene

COMMITTED = "pg_xact_commit_timestamp(xmin)"


def wait_until_quiet(cluster: Cluster, scenes: list[Scene], timeout: float) -> None:
    """Waits until no barrier is left but those with a deadline far ahead, or the time is over."""
    query = "SELECT count(*) FROM pg_barrier_state WHERE expires_at < clock_timestamp() + interval '10 minutes'"
    for scene in scenes:
        try:
            wait_until(
                lambda scene=scene: cluster.primary.value(query, dbname=scene.database), lambda left: left == 0,
                f"the orphans of {scene.database}", timeout,
            )  # fmt: skip
        except AssertionError:
            pass  # the checker tells which are left


def collect(cluster: Cluster, scenes: list[Scene], facts: Facts) -> None:
    """Adds to the facts what the databases and the logs say."""
    server = cluster.primary
    facts.cut = cluster.cut
    for scene in scenes:
        name = scene.database
        facts.journal += [
            Entry(op, name, *rest)
            for op, *rest in server.query(
                f"SELECT op, barrier, kind, deadline, remaining, {COMMITTED} FROM chaos.op", dbname=name
            )
        ]
        facts.deletions += [
            Deletion(name, *row)
            for row in server.query(
                f"SELECT n, barrier, deadline, remaining, at, {COMMITTED}, pid, who, leader, term FROM chaos.deletion",
                dbname=name,
            )
        ]
        facts.moves += [
            Move(name, *row)
            for row in server.query(
                f"SELECT n, leader, term, old_leader, old_stamp, at, {COMMITTED}, who FROM chaos.move ORDER BY n",
                dbname=name,
            )
        ]
        facts.left += [
            Left(name, *row)
            for row in server.query(
                "SELECT execution_id, expires_at, remaining FROM pg_barrier_state ORDER BY 1", dbname=name
            )
        ]
    facts.ended = server.value("SELECT clock_timestamp()")
    for epoch, primary in cluster.servers.items():
        facts.lines += lines(epoch, primary.log())


def lines(epoch: int, log: str) -> list[Line]:
    """The lines of a log that say that a barrier was reaped."""
    found = []
    for entry in warnings(log, "reaped orphaned barrier "):
        # A process killed in the middle of writing has said nothing.
        if entry.detail.endswith("}"):
            record = json.loads(entry.detail)
            found.append(Line(epoch, record["execution_id"], float(record["lateness_ms"]), entry.message))
    return found
