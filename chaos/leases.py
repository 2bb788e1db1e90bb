"""Who led, and who reaped meanwhile: never two in one lease, and terms that only rise. Pure.

The numbers ``n`` come from one sequence and are taken under the lease row's lock, the commit
times from the server (``track_commit_timestamp``), before that lock is released. So both have
the order in which leases were moved and batches committed, if every batch holds the lock.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from chaos.ledger import WORKER, Deletion, Facts, Move
from chaos.verdict import Broken

PID = re.compile(r"/(\d+)@")


@dataclass(frozen=True)
class Holding:
    """One holding of a lease, from its acquisition to the next move."""

    leader: str
    term: int | None
    since: datetime
    until: datetime | None
    who: str

    def __str__(self) -> str:
        return f"{self.leader!r} in term {self.term}, from {self.since} until {self.until or 'the end'}"


def judge(facts: Facts) -> Iterator[Broken]:
    """All that speaks against the promises about leases."""
    moves: dict[str, list[Move]] = defaultdict(list)
    for move in sorted(facts.moves, key=lambda move: move.n):
        moves[move.database].append(move)
    for database, history in moves.items():
        yield from _terms(database, history)
        yield from _takeovers(database, history, facts.shortest_lease)
    reaped = [deletion for deletion in facts.deletions if deletion.who == WORKER]
    holdings = {database: holdings_of(history) for database, history in moves.items()}
    said: set[tuple[object, ...]] = set()
    for deletion in sorted(reaped, key=lambda deletion: (deletion.committed, deletion.n)):
        # A line for each batch, not for each of its rows.
        batch = (deletion.database, deletion.committed, deletion.pid, deletion.leader, deletion.term)
        if batch not in said:
            said.add(batch)
            yield from _batch(deletion, holdings.get(deletion.database, []))


def holdings_of(moves: list[Move]) -> list[Holding]:
    """The holdings of one lease, in order."""
    ends = [move.committed for move in moves[1:]] + [None]
    return [
        Holding(move.leader, move.term, move.committed, end, move.who)
        for move, end in zip(moves, ends, strict=True)
        if move.leader
    ]


def _terms(database: str, moves: list[Move]) -> Iterator[Broken]:
    highest: int | None = None
    taken: dict[str, Move] = {}
    for move in moves:
        if highest is not None and move.term is not None and move.term < highest:
            yield Broken("terms", database, f"the term went down from {highest}: {move}")
        if move.leader and move.who == WORKER:
            if move.term is not None and highest is not None and move.term <= highest:
                found = f"acquired with term {move.term} after term {highest}: {move}"
                yield Broken("terms", database, found, move.leader, move.at)
            if move.term is None and move.leader in taken:
                yield Broken("terms", database, f"a leader id was used twice: {taken[move.leader]} and {move}")
            taken[move.leader] = move
        if move.term is not None:
            highest = max(highest or 0, move.term)
        if move.leader and move.who == WORKER and PID.search(move.leader) is None:
            yield Broken("leaders", database, f"an id without a process: {move}")


def _takeovers(database: str, moves: list[Move], shortest_lease: float) -> Iterator[Broken]:
    for move in moves:
        age = (move.at - move.old_stamp).total_seconds()
        if move.who == WORKER and move.leader and move.old_leader and age < shortest_lease:
            found = f"taken from its holder when stamped {age:.3f} s before: {move}"
            yield Broken("leaders", database, found, move.leader, move.at)


def _batch(deletion: Deletion, holdings: list[Holding]) -> Iterator[Broken]:
    at = deletion.committed
    batch = f"{deletion.barrier} was reaped by pid {deletion.pid} at {deletion.at}, committed at {at},"
    clue = f"[{deletion.pid}]"
    found = PID.search(deletion.leader)
    if found is None or int(found[1]) != deletion.pid:
        led = f"when {deletion.leader!r} led (term {deletion.term})"
        yield Broken("leaders", deletion.database, f"{batch} {led}", clue, deletion.at)
        return
    held = [h for h in holdings if h.since <= at and (h.until is None or at <= h.until)]
    if not any((h.leader, h.term, h.who) == (deletion.leader, deletion.term, WORKER) for h in held):
        led = "; ".join(map(str, held)) or "nobody"
        yield Broken(
            "leaders", deletion.database,
            f"{batch} for {deletion.leader!r} in term {deletion.term}, which it had not acquired or had lost."
            f" Then the lease was held by {led}", clue, deletion.at,
        )  # fmt: skip
