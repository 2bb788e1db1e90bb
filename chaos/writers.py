"""Clients that arm, decrement, re-arm, abort and complete barriers by the original's protocol.

Each barrier has a *story*: steps that some client of its database takes one after the other. Every
step is one transaction, which also writes its number into ``chaos.op``: so what became of a
commit that got no answer is known in the end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from chaos.clients import Clients, Session, Stage
from chaos.cluster import Cluster
from chaos.ledger import Ledger, Op

CLIENTS = 4
# Barriers armed a second, in one database.
RATE = 6.0
BURST = 40
# The share of transactions that are held open for a while.
SLOW = 0.1

ARM = """
WITH armed AS (
  INSERT INTO pg_barrier_state (execution_id, organization_id, remaining, expires_at)
  SELECT id, 'chaos', %(remaining)s, clock_timestamp() + make_interval(secs => %(seconds)s)
  FROM unnest(%(ids)s::text[]) AS id
  RETURNING execution_id, remaining, expires_at)
INSERT INTO chaos.op
SELECT op, id, 'arm', expires_at, remaining
FROM unnest(%(ops)s::bigint[], %(ids)s::text[]) AS u (op, id) JOIN armed ON execution_id = id
RETURNING op, deadline"""

DECREMENT = """
UPDATE pg_barrier_state
SET remaining = remaining - 1, results = results || '["done"]'::jsonb, last_progress_at = now()
WHERE execution_id = %s RETURNING remaining"""
REARM = """
UPDATE pg_barrier_state SET expires_at = clock_timestamp() + make_interval(secs => %s)
WHERE execution_id = %s RETURNING expires_at"""
ABORT = "UPDATE pg_barrier_state SET remaining = -1 WHERE execution_id = %s RETURNING remaining"
COMPLETE = "DELETE FROM pg_barrier_state WHERE execution_id = %s RETURNING remaining"
JOURNAL = "INSERT INTO chaos.op VALUES (%s, %s, %s, %s, %s)"


def story(rng: random.Random) -> list[Stage]:
    """The steps of one barrier; the first arms it."""
    tasks = rng.randint(1, 4)
    work = [(rng.uniform(0.02, 0.4), "decrement", 0.0) for _ in range(tasks - 1)]
    end = [(rng.uniform(0.02, 0.3), "finish", 0.0)]
    if rng.random() < 0.3:
        # The callback fires between the last decrement and the delete.
        end = [(0.05, "decrement", 0.0), (rng.uniform(0.0, 0.4), "complete", 0.0)]
    kind = rng.choices(
        ["finish", "orphan", "abort", "rearm", "late", "long", "burst"], [30, 23, 8, 20, 14, 2, 3]
    )[0]
    soon = rng.uniform(0.6, 1.5)
    match kind:
        case "finish":
            return [(0.0, "arm", rng.uniform(2.0, 4.0)), *work, *end]
        case "orphan":
            return [(0.0, "arm", soon), *work[: rng.randint(0, len(work))]]
        case "abort":
            return [(0.0, "arm", soon), *work, (0.1, "abort", 0.0)]
        case "rearm":
            rearms = [(soon - rng.uniform(-0.2, 0.2), "rearm", soon) for _ in range(rng.randint(1, 4))]
            return [(0.0, "arm", soon), *rearms, *rng.choice([[], work + end])]
        case "late":
            return [(0.0, "arm", soon), (soon + rng.uniform(-0.1, 0.5), "decrement", 0.0), *work, *end]
        case "long":
            pauses = [(rng.uniform(2.0, 9.0), "decrement", 0.0) for _ in range(3)]
            return [(0.0, "arm", 3600.0), *pauses]
        case _:
            return [(0.0, "burst", soon)]


def tasks_of(steps: list[Stage]) -> int:
    """How many tasks a barrier is armed with: one more than are done, if it is left an orphan."""
    done = sum(what in ("decrement", "finish") for _, what, _ in steps)
    return done if steps[-1][1] in ("finish", "complete") else done + 1


class Writers(Clients):
    """The clients of the barriers of one database."""

    def __init__(self, cluster: Cluster, database: str, ledger: Ledger, seed: int) -> None:
        super().__init__(database, ledger, random.Random(f"{seed}/{database}"), CLIENTS, RATE)
        self.cluster = cluster

    def story(self) -> list[Stage]:
        """What becomes of one more barrier."""
        return story(self.rng)

    def session(self) -> Session:
        """One client's."""
        return Client(self.cluster, self.database, self.ledger, self.rng)


class Client:
    """One session."""

    def __init__(self, cluster: Cluster, database: str, ledger: Ledger, rng: random.Random) -> None:
        self.database, self.ledger, self.rng = database, ledger, rng
        self.connection, self.epoch = cluster.connect(database, "client")

    def close(self) -> None:
        """Ends the session."""
        self.connection.close()

    def take(self, barrier: str, stages: list[Stage]) -> bool:
        """Takes the first step; whether the story goes on."""
        _, what, seconds = stages[0]
        tasks = tasks_of(stages)
        match what:
            case "arm":
                self._arm([barrier], seconds, tasks)
                return True
            case "burst":
                self._arm([f"{barrier}.{n}" for n in range(BURST)], seconds, 1)
                return False
            case "finish":
                return self._commit(barrier, "decrement", self._finish)
            case "rearm":
                return self._commit(barrier, "rearm", lambda op: self._change(op, REARM, [seconds, barrier]))
            case "decrement":
                return self._commit(barrier, what, lambda op: self._change(op, DECREMENT, [barrier]))
            case "abort":
                return self._commit(barrier, what, lambda op: self._change(op, ABORT, [barrier]))
            case _:
                return self._commit(barrier, what, lambda op: self._change(op, COMPLETE, [barrier]))

    def _arm(self, barriers: list[str], seconds: float, tasks: int) -> None:
        ops = [self.ledger.begin(self.database, barrier, "arm", self.epoch) for barrier in barriers]
        values = {"ids": barriers, "ops": [op.number for op in ops], "seconds": seconds, "remaining": tasks}
        deadlines = dict(self.connection.execute(ARM, values).fetchall())
        for op in ops:
            op.deadline, op.remaining, op.acked = deadlines[op.number], tasks, True

    def _commit(self, barrier: str, kind: str, work: Callable[[Op], list[Op]]) -> bool:
        """Runs one transaction of a story; whether the barrier was there."""
        op = self.ledger.begin(self.database, barrier, kind, self.epoch)
        at = None
        with self.connection.transaction():
            done = work(op)
            self._dawdle()
            if not done:
                at = self.connection.execute("SELECT clock_timestamp()").fetchone()
        if at is not None:
            self.ledger.missed(self.database, barrier, self.epoch, at[0], kind)
            op.kind = f"missed {kind}"
        for each in done:
            each.acked = True
        return bool(done)

    def _dawdle(self) -> None:
        """Some clients are slow to commit: their barriers stay locked meanwhile, and a reaper meets
        the version of before."""
        if self.rng.random() < SLOW:
            time.sleep(self.rng.uniform(0.05, 0.4))

    def _change(self, op: Op, statement: str, params: list[Any]) -> list[Op]:
        row = self.connection.execute(statement, params).fetchone()
        if row is None:
            return []
        if op.kind == "rearm":
            op.deadline = row[0]
        self.connection.execute(JOURNAL, [op.number, op.barrier, op.kind, op.deadline, None])
        return [op]

    def _finish(self, op: Op) -> list[Op]:
        """The last task: counts down to zero, fires the callback and deletes, all in one."""
        done = self._change(op, DECREMENT, [op.barrier])
        if done:
            last = self.ledger.begin(self.database, op.barrier, "complete", self.epoch)
            done += self._change(last, COMPLETE, [op.barrier])
        return done
