"""Mends the last bad rows at the end, waits until policies have reaped all, and reads what is known of it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import partial

from harness import wait_until
from scenery.log import warnings

from chaos.cluster import Cluster
from chaos.collect import COMMITTED
from chaos.row_ledger import Quarantined, Reaping, RowEntry, RowFacts, RowLeft
from chaos.scene import Scene
from chaos.tables import TABLES

PUT = re.compile(r"^row (\{.*\}) of \S+ cannot be reaped, and goes into quarantine")


def mend(cluster: Cluster, scenes: list[Scene]) -> None:
    """Makes every bad row one that can be deleted."""
    for scene in scenes:
        cluster.primary.execute("DELETE FROM public.job_note", dbname=scene.database)
        for table in TABLES:
            cluster.primary.execute(
                f"UPDATE public.{table.name} SET bad_until = '-infinity' WHERE bad_until > now()", dbname=scene.database
            )


def wait_until_reaped(cluster: Cluster, scenes: list[Scene], timeout: float) -> None:
    """Waits until no row is left that is due soon, and none in quarantine, or the time is over."""
    left = " + ".join(
        f"(SELECT count(*) FROM public.{table.name}"
        f" WHERE {table.deadline()} < clock_timestamp() + interval '10 minutes' AND {table.meets})"
        for table in TABLES
    )
    query = f"SELECT {left} + (SELECT count(*) FROM public.pg_reaper_quarantine)"
    for scene in scenes:
        look = partial(cluster.primary.value, query, dbname=scene.database)
        # The checker tells which are left.
        with suppress(AssertionError):
            wait_until(look, lambda left: left == 0, f"the due rows of {scene.database}", timeout)


def collect_rows(cluster: Cluster, scenes: list[Scene], rows: RowFacts) -> None:
    """Adds to the facts what the databases and the logs say."""
    server = cluster.primary
    for scene in scenes:
        name = scene.database
        rows.journal += [
            RowEntry(*row)
            for row in server.query(
                f"SELECT op, relation, id, kind, deadline, state, meets, bad, {COMMITTED} FROM chaos.row_op",
                dbname=name,
            )
        ]
        rows.reapings += [
            Reaping(*row)
            for row in server.query(
                f"SELECT relation, id, deadline, state, meets, at, {COMMITTED}, pid FROM chaos.reaping", dbname=name
            )
        ]
        for table in TABLES:
            query = f"SELECT '{table.name}', id, {table.deadline()}, {table.meets} FROM public.{table.name}"
            rows.left += [RowLeft(*row) for row in server.query(query, dbname=name)]
        rows.quarantine += [
            Quarantined(*row)
            for row in server.query(
                "SELECT relation::text, key::text, error, tries FROM public.pg_reaper_quarantine", dbname=name
            )
        ]
        rows.put |= {row for (row,) in server.query("SELECT id FROM chaos.put", dbname=name)}
    # A server that was cut has its own to tell.
    for primary in cluster.servers.values():
        rows.put |= put(primary.log())


def put(log: str) -> set[str]:
    """The rows that a log says were put into quarantine: those with an ``id``."""
    found = (PUT.match(entry.message) for entry in warnings(log, "goes into quarantine"))
    keys = [json.loads(match[1]) for match in found if match]
    return {key["id"] for key in keys if "id" in key}
