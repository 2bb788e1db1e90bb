"""What became of each row that a policy watches: none lost alive, none left, none held up. Pure.

As ``barriers`` does, it goes by the journal of the surviving server, and by the order in which the
server committed: whoever changes or deletes a row holds it locked until then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from chaos.ledger import Facts
from chaos.row_ledger import Reaping, RowEntry
from chaos.verdict import Broken

# A good row may wait for a server to come back, for a lease to run out, for its table's next try
# after an error; not for as long as a row may be bad.
HELD_UP_SECONDS = 30.0


def judge(facts: Facts) -> Iterator[Broken]:
    """All that speaks against the promises about policies."""
    rows = facts.rows
    histories: dict[str, list[RowEntry]] = defaultdict(list)
    for entry in sorted(rows.journal, key=lambda entry: entry.committed):
        histories[entry.row].append(entry)
    reapings: dict[str, list[Reaping]] = defaultdict(list)
    for reaping in rows.reapings:
        reapings[reaping.row].append(reaping)
    left = {left.row for left in rows.left}
    yield from _commits(facts)
    for row, history in histories.items():
        yield from _fate(row, history, reapings.get(row, []), row in left, row in rows.put)
    for row in reapings.keys() - histories.keys():
        yield Broken("commits", row, f"reaped, but no client has made it: {reapings[row]}")
    yield from _left(facts)


def lateness(history: list[RowEntry], reaping: Reaping) -> float:
    """How long a row was due before it was reaped, in seconds: it was not before its commit."""
    known = [entry.committed for entry in history if entry.committed <= reaping.committed]
    return (reaping.at - max([reaping.deadline, *known])).total_seconds()


def _commits(facts: Facts) -> Iterator[Broken]:
    journaled = {entry.number for entry in facts.rows.journal}
    for op in facts.rows.ops:
        if op.acked and op.number not in journaled and op.epoch not in facts.cut:
            yield Broken("commits", op.row, f"{op.kind} was acknowledged in epoch {op.epoch} and is gone: {op}")


def _fate(row: str, history: list[RowEntry], reapings: list[Reaping], left: bool, put: bool) -> Iterator[Broken]:
    completed = any(entry.kind == "complete" for entry in history)
    if len(reapings) > 1:
        yield Broken("twice", row, f"reaped {len(reapings)} times: {reapings}")
    if not (reapings or completed or left):
        yield Broken("lost", row, f"vanished without a trace; its history: {history}")
    for reaping in reapings:
        if completed:
            yield Broken("twice", row, f"completed by its client and reaped as well: {reaping}; {history}")
        yield from _reaped(row, history, reaping)
        if lateness(history, reaping) <= HELD_UP_SECONDS:
            continue
        late = f"reaped {lateness(history, reaping):.1f} s after it was due: {reaping}"
        if not any(entry.bad for entry in history):
            yield Broken("heldup", row, f"a good row, {late}")
        elif not put:
            yield Broken("put", row, f"a bad row, and never in quarantine, {late}")


def _reaped(row: str, history: list[RowEntry], reaping: Reaping) -> Iterator[Broken]:
    by = f"reaped at {reaping.at} by pid {reaping.pid}"
    before = [entry for entry in history if entry.committed <= reaping.committed]
    # One witness is enough.
    for source, deadline, meets in (
        ("its row", reaping.deadline, reaping.meets),
        *(("its client", entry.deadline, entry.meets) for entry in before[-1:]),
    ):
        if deadline >= reaping.at:
            early = (deadline - reaping.at).total_seconds()
            yield Broken("lost", row, f"{by}, {early:.3f} s before its deadline {deadline} (so says {source})")
            break
        if not meets:
            yield Broken("lost", row, f"{by}, though the filter leaves it out (so says {source})")
            break
    version = (reaping.deadline, reaping.state)
    if before and (before[-1].deadline, before[-1].state) != version:
        yield Broken("lost", row, f"{by} in the version {version}, after this was committed: {before[-1]}")
    for entry in history[len(before) :]:
        yield Broken("lost", row, f"{entry.kind} at {entry.committed}, though it was {by}")


def _left(facts: Facts) -> Iterator[Broken]:
    for left in facts.rows.left:
        if left.meets and _over(left.deadline, facts.ended):
            yield Broken("due", left.row, f"there at the end, {facts.ended}, past its deadline {left.deadline}: {left}")
    for held in facts.rows.quarantine:
        yield Broken("quarantine", held.key, f"in quarantine at the end, after {held.tries} tries: {held}")


def _over(deadline: datetime, ended: datetime | None) -> bool:
    return ended is not None and deadline < ended
