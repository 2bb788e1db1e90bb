"""What a run has shown about policies, for people."""

from __future__ import annotations

from collections import Counter, defaultdict

from chaos.row_ledger import RowEntry, RowFacts
from chaos.rows import lateness

CHANGES = {"renew": "renewed", "hold": "held", "free": "freed", "complete": "completed"}


def figure(name: str, number: int, remark: str = "") -> None:
    """One figure."""
    print(f"  {name:<44} {number:7}" + (f"   {remark}" if remark else ""))


def show_rows(rows: RowFacts) -> None:
    """Prints the figures of each table, and how late rows went."""
    histories: dict[str, list[RowEntry]] = defaultdict(list)
    for entry in rows.journal:
        histories[entry.row].append(entry)
    bad = {row for row, history in histories.items() if any(entry.bad for entry in history)}
    print("rows of policies")
    for relation in sorted({entry.relation for entry in rows.journal}):
        kinds = Counter(entry.kind for entry in rows.journal if entry.relation == relation)
        changed = ", ".join(f"{kinds[kind]} {said}" for kind, said in CHANGES.items())
        figure(f"{relation} made", kinds["insert"], changed)
        reaped = [reaping for reaping in rows.reapings if reaping.relation == relation]
        mended = sum(reaping.row in bad for reaping in reaped)
        figure(f"{relation} reaped", len(reaped), f"{mended} of them bad ones, mended")
    # Of those that were lost in a fail-over nobody knows.
    good = len((rows.put & histories.keys()) - bad)
    figure("put into quarantine", len(rows.put), f"{good} of them good ones, that a fault had kept locked or slow")
    late = sorted(lateness(histories[r.row], r) for r in rows.reapings if r.row not in bad)
    if late:
        half, most = late[len(late) // 2], late[-1]
        figure("good rows reaped", len(late), f"late by {half:.2f} s (median), by {most:.1f} s at most")
    figure("there at the end", len(rows.left), "not due, or left out by the filter")
