"""Clients that make, renew, hold, free and complete the rows of one watched table, and abandon some.

Some rows are *bad*: they cannot be deleted for a while after their deadline. As with barriers, each
step is one transaction, which also writes into the journal what it made of the row.
"""

from __future__ import annotations

import random
import time
from datetime import datetime

from chaos.clients import Clients, Session, Stage
from chaos.cluster import Cluster
from chaos.ledger import Ledger
from chaos.tables import MEND, Table

CLIENTS = 2
# Rows made a second, in one table.
RATE = 3.0
BURST = 30
# The share of transactions that are held open for a while.
SLOW = 0.15
# How long after its deadline a row is still locked on the brink: less than a sweep waits for it.
BRINK_SECONDS = 0.015
WAIT = """
SELECT pg_sleep(least(0.4, extract(epoch FROM %s::timestamptz - clock_timestamp()) + %s)::float8)"""

# How often each story is told. There is always a bad row about, and one that is bad for longer than
# good ones may be late.
STORIES = {
    "abandon": 23, "renew": 30, "complete": 14, "hold": 14, "bad": 9, "bad for long": 2, "bad, renewed": 3, "long": 2,
    "crowd": 3,
}  # fmt: skip
BAD_FOR = (0.5, 8.0)
BAD_FOR_LONG = (35.0, 40.0)


def story(rng: random.Random) -> list[Stage]:
    """The steps of one row. The first makes it, and the seconds are how far off its deadline is; of a
    step that mends, how long the row stays bad after that."""
    soon = rng.uniform(0.6, 1.5)
    kind = rng.choices(list(STORIES), list(STORIES.values()))[0]
    bad_for = rng.uniform(*(BAD_FOR_LONG if kind == "bad for long" else BAD_FOR))
    match kind:
        case "abandon":
            return [(0.0, "insert", soon)]
        case "renew":
            renewals = [(soon + rng.uniform(-0.3, 0.1), "renew", soon) for _ in range(rng.randint(1, 4))]
            return [(0.0, "insert", soon), *renewals, *rng.choice([[], [(0.3, "complete", 0.0)]])]
        case "complete":
            return [(0.0, "insert", soon), (soon + rng.uniform(-0.5, 0.1), "complete", 0.0)]
        case "hold":
            ends = [[], [(rng.uniform(0.2, 2.0), "free", 0.0)], [(1.0, "renew", soon), (soon - 0.1, "free", 0.0)]]
            return [(0.0, "insert", soon), (soon + rng.uniform(-0.3, 0.05), "hold", 0.0), *rng.choice(ends)]
        case "bad" | "bad for long":
            return [(0.0, "insert bad", soon), (soon + bad_for + 0.1, "mend", bad_for)]
        case "bad, renewed":
            return [
                (0.0, "insert bad", soon), (soon + bad_for / 2, "renew", bad_for), (bad_for + 0.1, "mend", bad_for)
            ]  # fmt: skip
        case "long":
            return [(0.0, "insert", 3600.0), (rng.uniform(2.0, 9.0), "renew", 3600.0)]
        case _:
            return [(0.0, "insert crowd", soon), (soon + bad_for + 0.1, "mend", bad_for)]


class RowWriters(Clients):
    """The clients of one table of one database."""

    def __init__(self, cluster: Cluster, database: str, table: Table, ledger: Ledger, seed: int) -> None:
        prefix = f"{database}-{table.name}"
        super().__init__(database, ledger, random.Random(f"{seed}/{prefix}"), CLIENTS, RATE, prefix)
        self.cluster, self.table = cluster, table

    def story(self) -> list[Stage]:
        """What becomes of one more row."""
        return story(self.rng)

    def session(self) -> Session:
        """One client's."""
        return RowClient(self.cluster, self.database, self.table, self.ledger, self.rng)


class RowClient:
    """One session."""

    def __init__(self, cluster: Cluster, database: str, table: Table, ledger: Ledger, rng: random.Random) -> None:
        self.table, self.ledger, self.rng = table, ledger, rng
        self.connection, self.epoch = cluster.connect(database, "client")

    def close(self) -> None:
        """Ends the session."""
        self.connection.close()

    def take(self, row: str, stages: list[Stage]) -> bool:
        """Takes the first step; whether the story goes on."""
        _, what, seconds = stages[0]
        kind, _, how = what.partition(" ")
        if kind == "insert":
            bad_seconds = seconds + stages[-1][2]
            ids = [f"{row}.{n}" for n in range(BURST)] if how == "crowd" else [row]
            # The bad one of a crowd stands in the middle of its batch.
            bad = [bool(how) and n == len(ids) // 2 for n in range(len(ids))]
            self._insert(ids, bad, seconds, bad_seconds)
            return True
        if kind == "mend":
            if self.table.referenced:
                self.connection.execute(MEND)
            return True
        return self._change(row, kind, seconds)

    def _insert(self, ids: list[str], bad: list[bool], seconds: float, bad_seconds: float) -> None:
        ops = [self.ledger.begin_row(row, "insert", self.epoch) for row in ids]
        values = {"ops": [op.number for op in ops], "ids": ids, "bad": bad, "seconds": seconds}
        self.connection.execute(self.table.insert, {**values, "bad_seconds": bad_seconds})
        for op in ops:
            op.acked = True

    def _change(self, row: str, kind: str, seconds: float) -> bool:
        op = self.ledger.begin_row(row, kind, self.epoch)
        values = {"op": op.number, "id": row, "kind": kind, "seconds": seconds}
        with self.connection.transaction():
            deadline = self.connection.execute(self.table.look, [row]).fetchone()
            there = self.connection.execute(self.table.change(kind), values).fetchone() is not None
            if there and deadline is not None:
                self._dawdle(deadline[0])
        op.acked = there
        return there

    def _dawdle(self, deadline: datetime) -> None:
        """Keeps the row locked for a while: a sweep meets the version of before."""
        if self.table.brink:
            self.connection.execute(WAIT, [deadline, self.rng.uniform(0.0, BRINK_SECONDS)])
        elif self.rng.random() < SLOW:
            time.sleep(self.rng.uniform(0.05, 0.4))
