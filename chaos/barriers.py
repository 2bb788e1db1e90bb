"""What became of each barrier: none lost alive, none left, none reaped twice. Pure.

The journal and the deletions are those of the surviving server. Client knowledge of an epoch
that was cut is not in them, or not all of it; what the journal has of an epoch has survived for
good, since every later server was copied from one that had it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime

from chaos.ledger import CLIENT, WORKER, Deletion, Entry, Facts, Line, Miss, Op
from chaos.verdict import Broken


def judge(facts: Facts) -> Iterator[Broken]:
    """All that speaks against the promises about barriers."""
    histories: dict[str, list[Entry]] = defaultdict(list)
    for entry in facts.journal:
        histories[entry.barrier].append(entry)
    for history in histories.values():
        history.sort(key=lambda entry: entry.committed)
    deletions: dict[str, list[Deletion]] = defaultdict(list)
    for deletion in facts.deletions:
        deletions[deletion.barrier].append(deletion)
    yield from _commits(facts)
    yield from _misses(facts)
    left = {left.barrier for left in facts.left}
    for barrier, history in histories.items():
        yield from _fate(barrier, history, deletions.get(barrier, []), barrier in left)
    for barrier in deletions.keys() - histories.keys():
        yield Broken("commits", barrier, f"deleted, but no client has armed it: {deletions[barrier]}")
    yield from _lines(facts, deletions)
    yield from _left(facts)


def _commits(facts: Facts) -> Iterator[Broken]:
    journaled = {entry.number for entry in facts.journal}
    for op in facts.ops:
        if op.acked and op.number not in journaled and op.epoch not in facts.cut:
            yield Broken("commits", op.barrier, f"{op.kind} was acknowledged in epoch {op.epoch} and is gone: {op}")


def _misses(facts: Facts) -> Iterator[Broken]:
    journaled = {entry.number: entry for entry in facts.journal}
    ops: dict[str, list[Op]] = defaultdict(list)
    for op in facts.ops:
        ops[op.barrier].append(op)
    for miss in facts.misses:
        deadline = _deadline_in_force(miss, ops[miss.barrier], journaled)
        if deadline is not None and miss.at < deadline:
            yield Broken(
                "live", miss.barrier,
                f"gone at {miss.at} (epoch {miss.epoch}) when a client came to {miss.kind} it,"
                f" {(deadline - miss.at).total_seconds():.3f} s before its deadline {deadline}",
            )  # fmt: skip


def _deadline_in_force(miss: Miss, ops: list[Op], journaled: dict[int, Entry]) -> datetime | None:
    """The deadline that the barrier must have had, or None if that cannot be said for sure."""
    deadline = None
    for op in sorted(ops, key=lambda op: op.number):
        if op.number > miss.before:
            break
        entry = journaled.get(op.number)
        there = entry is not None or (op.acked and op.epoch == miss.epoch)
        if op.kind == "complete" and (there or not op.acked):
            return None  # a client has deleted it, or may have
        if op.kind in ("arm", "rearm"):
            if there:
                deadline = op.deadline or (entry and entry.deadline)
            elif not op.acked:
                return None
    return deadline


def _fate(barrier: str, history: list[Entry], deletions: list[Deletion], left: bool) -> Iterator[Broken]:
    if len(deletions) > 1:
        yield Broken("twice", barrier, f"deleted {len(deletions)} times: {deletions}")
    if not deletions and not left:
        yield Broken("live", barrier, f"vanished without a trace; its history: {history}")
    completed = any(entry.kind == "complete" for entry in history)
    for deletion in deletions:
        if completed and deletion.who != CLIENT:
            yield Broken("twice", barrier, f"completed by its client and reaped as well: {deletion}; {history}")
        if deletion.who == WORKER:
            yield from _reaped(barrier, history, deletion)


def _reaped(barrier: str, history: list[Entry], deletion: Deletion) -> Iterator[Broken]:
    before = [entry for entry in history if entry.committed <= deletion.committed]
    deadlines = [entry.deadline for entry in before if entry.kind in ("arm", "rearm")]
    for deadline, source in ((deletion.deadline, "its row"), *((d, "its client") for d in deadlines[-1:])):
        if deadline is not None and deadline >= deletion.at:
            yield Broken(
                "live", barrier,
                f"reaped at {deletion.at}, {(deadline - deletion.at).total_seconds():.3f} s before its deadline"
                f" {deadline} (so says {source}), by pid {deletion.pid} under {deletion.leader!r} term {deletion.term}",
            )  # fmt: skip
    if deadlines and deadlines[-1] != deletion.deadline:
        yield Broken(
            "live", barrier,
            f"the version reaped had deadline {deletion.deadline}, but {deadlines[-1]} had been committed before",
        )  # fmt: skip
    after = [entry for entry in history if entry.committed > deletion.committed]
    for entry in after:
        yield Broken("counted", barrier, f"{entry.kind} at {entry.committed}, after it was reaped at {deletion}")
    if any(entry.kind == "abort" for entry in before):
        expected = -1
    else:
        armed = next((entry.remaining for entry in before if entry.kind == "arm"), None)
        if armed is None:
            return
        expected = armed - sum(entry.kind == "decrement" for entry in before)
    if deletion.remaining != expected:
        yield Broken(
            "counted", barrier,
            f"reaped with {deletion.remaining} remaining where its clients have counted down to {expected}: {before}",
        )  # fmt: skip


def _lines(facts: Facts, deletions: dict[str, list[Deletion]]) -> Iterator[Broken]:
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in facts.lines:
        lines[line.barrier].append(line)
    for barrier, said in lines.items():
        for line in said:
            if line.lateness_ms < 0:
                yield Broken("live", barrier, f"reaped {-line.lateness_ms} ms before its deadline: {line.text}")
        epochs = Counter(line.epoch for line in said)
        # What an epoch that was cut has said may be undone, and the barrier there again.
        standing = [epoch for epoch in epochs if epoch not in facts.cut]
        if max(epochs.values()) > 1 or (standing and min(standing) != max(epochs)):
            yield Broken("twice", barrier, "said to be reaped more than once: " + "; ".join(map(str, said)))
        if not standing:
            continue
        fates = deletions.get(barrier, [])
        if not fates:
            yield Broken("twice", barrier, f"said to be reaped, which is not so (or no longer): {said[-1]}")
        elif all(deletion.who == CLIENT for deletion in fates):
            yield Broken("twice", barrier, f"completed by its client and reaped as well: {said[-1]}; {fates}")


def _left(facts: Facts) -> Iterator[Broken]:
    for left in facts.left:
        if facts.ended is not None and left.deadline < facts.ended:
            late = (facts.ended - left.deadline).total_seconds()
            yield Broken("orphans", left.barrier, f"there {late:.1f} s after its deadline {left.deadline}, {left}")
