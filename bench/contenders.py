"""Who removes a backlog, and how: the reaper and its peers. Each times itself on ``backlog``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from bench import reaper
from bench.stage import OTHER, Stage, timed

TABLE = "backlog"
DELETE = "DELETE FROM {table} WHERE expires_at < now()"
RETURNING = f"{DELETE} RETURNING execution_id"
NAIVE = (
    "DELETE FROM {table} WHERE execution_id IN"
    " (SELECT execution_id FROM {table} WHERE expires_at < now() LIMIT 1000 FOR UPDATE SKIP LOCKED)"
)
SWEEP = "SELECT pg_reaper_sweep('{table}')"
BY_INDEX = "SET enable_seqscan = off", "SET enable_bitmapscan = off"
LARGE_BATCH = 10_000


@dataclass(frozen=True)
class Contender:
    """``run`` removes so many expired rows and returns the seconds it took; where that is ``brief``, what
    slows the machine down for a moment counts."""

    name: str
    run: Callable[[Stage, int], float]
    brief: bool = True


@contextmanager
def used(stage: Stage, statement: str, *before: str) -> Iterator[psycopg.Connection[Any]]:
    """A session in which a statement has run, on another table than the one that is measured; prepared
    by some others."""
    with stage.session() as session:
        for each in before:
            session.execute(each)
        session.execute(statement.format(table=OTHER))
        yield session


def bare(*before: str) -> Callable[[Stage, int], float]:
    """One DELETE, in a session that was prepared by some statements."""

    def run(stage: Stage, rows: int) -> float:
        with used(stage, DELETE, *before) as session:
            return timed(lambda: session.execute(DELETE.format(table=TABLE)))

    return run


def original(stage: Stage, rows: int) -> float:
    """What the reaper that this one came from sends: one DELETE, the ids fetched."""
    with used(stage, RETURNING) as session:
        return timed(lambda: session.execute(RETURNING.format(table=TABLE)).fetchall())


def naive(stage: Stage, rows: int) -> float:
    """What is found in many an application: by the primary key, until nothing is left."""
    with used(stage, NAIVE) as session:

        def all_of_them() -> None:
            while session.execute(NAIVE.format(table=TABLE)).rowcount:
                pass

        return timed(all_of_them)


def worker(batch: int | None = None, duty_cycle: str | None = None) -> Callable[[Stage, int], float]:
    """The reaper's own worker, from the moment that it is let loose; with default batches if not told,
    and without rests."""

    def run(stage: Stage, rows: int) -> float:
        stage.set(**{"pg_reaper.batch_size": batch, "pg_reaper.duty_cycle": duty_cycle})
        reaper.warm(stage, TABLE)
        return reaper.drain(stage, rows).seconds

    return run


def sweep(stage: Stage, rows: int) -> float:
    """pg_reaper_sweep(), called by hand."""
    stage.set(**{"pg_reaper.batch_size": None, "pg_reaper.duty_cycle": None})
    with used(stage, SWEEP) as session:
        return timed(lambda: session.execute(SWEEP.format(table=TABLE)))


def plan(stage: Stage, *before: str) -> str:
    """How a bare DELETE would find its rows: the name of the scan."""
    with stage.session() as session:
        for statement in before:
            session.execute(statement)
        top = session.execute(f"EXPLAIN (FORMAT JSON) {DELETE.format(table=TABLE)}").fetchone()[0][0]["Plan"]
        return str(top["Plans"][0]["Node Type"])


def race(
    stage: Stage, contenders: list[Contender], expired: int, rows: int, tied: bool = False, offset: int = 0
) -> dict[str, tuple[float, float]]:
    """One repetition: each contender on a table of its own, equal to the others', the order turned by
    ``offset``. Rows a second and bytes of WAL a row, by name."""

    def prepare() -> None:
        stage.other_table()
        stage.table(TABLE, rows, expired, tied)

    def measure(contender: Contender) -> tuple[float, float]:
        wal = stage.wal()
        seconds = contender.run(stage, expired)
        written = stage.wal() - wal
        stage.check(TABLE, rows - expired)
        stage.say(f"{contender.name}: {expired / seconds:,.0f} rows/s")
        return expired / seconds, written / expired

    turned = contenders[offset % len(contenders):] + contenders[: offset % len(contenders)]
    results = {}
    for each in turned:
        if each.brief:
            results[each.name] = stage.pace.undisturbed(prepare, partial(measure, each))
        else:
            prepare()
            results[each.name] = measure(each)
    return results
