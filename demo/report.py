"""What became of each barrier, from two witnesses: the application's own tables and the
worker's log."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass, field

from harness import Server

REAPED = re.compile(r'WARNING:  reaped orphaned barrier "')
DETAIL = re.compile(r"DETAIL:  (\{.*\})")


@dataclass
class Outcome:
    """The fate of all barriers that were armed."""

    armed: int = 0
    completed: int = 0
    reaped: int = 0
    left: int = 0
    logged: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    lateness_ms: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def orphaned(self) -> int:
        """Barriers that their clients never completed."""
        return self.armed - self.completed

    @property
    def good(self) -> bool:
        """Whether every orphan was reaped, said so in the log, and nothing else was touched."""
        return self.left == 0 and not self.lost and self.logged == self.reaped == self.orphaned > 0

    def show(self) -> None:
        """Prints the report."""
        print()
        print(f"armed                {self.armed:6}")
        print(f"completed            {self.completed:6}   by their clients, the callback fired")
        print(f"orphaned             {self.orphaned:6}   not completed before the deadline")
        print(f"reaped by the worker {self.reaped:6}   {self.logged} of them in the log")
        for reason, count in sorted(self.reasons.items()):
            print(f"                     {count:6}   {reason}")
        if self.lateness_ms:
            p50, worst = statistics.median(self.lateness_ms), max(self.lateness_ms)
            print(f"lateness             {p50:6.0f}   ms after the deadline, half of them (p50)")
            print(f"                     {worst:6.0f}   ms, the latest")
        print(f"orphans left         {self.left:6}   must be 0")
        print(f"live barriers lost   {len(self.lost):6}   must be 0")
        for complaint in self.lost:
            print(f"  {complaint}")
        if not self.orphaned:
            print("no client was killed in the middle of a task, so nothing was shown: run it again")
        print("\nAll is well." if self.good else "\nSomething is wrong.")


def reaped_in_log(log: str) -> dict[str, dict[str, object]]:
    """The worker's records of reaped barriers, by execution id."""
    records = {}
    expecting = False
    for line in log.splitlines():
        if REAPED.search(line):
            expecting = True
        elif expecting and (found := DETAIL.search(line)):
            record = json.loads(found[1])
            records[record["execution_id"]] = record
            expecting = False
    return records


def read_outcome(server: Server) -> Outcome:
    """Compares the tables with the log."""
    records = reaped_in_log(server.log())
    outcome = Outcome(logged=len(records))
    for execution_id, completed, waiting in server.query(
        "SELECT a.execution_id, c.execution_id IS NOT NULL, b.execution_id IS NOT NULL"
        " FROM demo.armed AS a LEFT JOIN demo.callback AS c USING (execution_id)"
        " LEFT JOIN pg_barrier_state AS b USING (execution_id)"
    ):
        record = records.get(execution_id)
        outcome.armed += 1
        outcome.completed += completed
        outcome.left += waiting
        outcome.reaped += not completed and not waiting
        if record is not None and completed:
            outcome.lost.append(f"{execution_id} was completed by its clients and reaped as well")
        if record is not None and float(record["lateness_ms"]) < 0:
            outcome.lost.append(f"{execution_id} was reaped before its deadline")
        if record is None and not completed and not waiting:
            outcome.lost.append(f"{execution_id} vanished without a word in the log")
    # A client that finds no row before the deadline is a witness against the reaper.
    for (execution_id,) in server.query(
        "SELECT DISTINCT execution_id FROM demo.abandoned JOIN demo.armed USING (execution_id) WHERE at < expires_at"
    ):
        outcome.lost.append(f"{execution_id} was gone before its deadline when a client came to count it down")
    outcome.lateness_ms = [float(record["lateness_ms"]) for record in records.values()]
    for record in records.values():
        reason = str(record["reason"])
        outcome.reasons[reason] = outcome.reasons.get(reason, 0) + 1
    return outcome
