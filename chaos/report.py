"""What a run has shown, for people."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from chaos.checker import PROMISES, Verdict
from chaos.cluster import Cluster
from chaos.ledger import CLIENT, OUTSIDE, WORKER, Facts
from chaos.nemesis import Nemesis
from chaos.row_report import figure, show_rows
from chaos.verdict import Broken
from chaos.watch import DOWN, Watch

EVIDENCE = 10
LOG_LINES = 6
AROUND = timedelta(seconds=3)


def show(facts: Facts, verdict: Verdict, nemesis: Nemesis, watches: list[Watch], cluster: Cluster) -> None:
    """Prints the figures, then the verdict, with evidence where it is bad."""
    kinds = Counter(entry.kind for entry in facts.journal)
    who = Counter(deletion.who for deletion in facts.deletions)
    journaled = {entry.number for entry in facts.journal}
    lost = sum(op.acked and op.number not in journaled for op in facts.ops)
    unanswered = sum(not op.acked and not op.kind.startswith("missed") for op in facts.ops)
    said = {line.barrier for line in facts.lines}
    silent = sum(deletion.who == WORKER and deletion.barrier not in said for deletion in facts.deletions)
    print("\nfaults")
    for kind in sorted(nemesis.done.keys() | nemesis.missed.keys()):
        missed = f", {nemesis.missed[kind]} found nobody" if nemesis.missed[kind] else ""
        print(f"  {kind:<22} {nemesis.done[kind]:4}{missed}")
    print("barriers")
    moved = f"{kinds['rearm']} re-armed, {kinds['decrement']} decrements, {kinds['abort']} aborted"
    figure("armed", kinds["arm"], moved)
    figure("completed by clients", who[CLIENT])
    figure("reaped by pg_reaper", who[WORKER], f"{silent} without a line: killed between commit and log")
    figure("reaped by the outsider", who[OUTSIDE])
    figure("found gone by clients", len(facts.misses), "too late, as it should be; each is checked")
    figure("alive at the end", len(facts.left), "their deadlines are far ahead")
    figure("commits unanswered", unanswered, "what became of them was found out afterwards")
    figure("commits lost", lost, f"in {len(facts.cut)} fail-overs that lose some (of {cluster.epoch - 1})")
    show_rows(facts.rows)
    print("leases")
    for watch in watches:
        database, gaps = watch.scene.database, watch.gaps
        moves = [move for move in facts.moves if move.database == database]
        ours = [move for move in moves if move.leader and move.who == WORKER]
        others = sum(bool(move.leader) and move.who == OUTSIDE for move in moves)
        terms = [move.term for move in ours if move.term is not None]
        print(
            f"  {database}: acquired {len(ours)} times by pg_reaper, {others} times by the outsider;"
            f" last term {max(terms, default='none')}"
        )
        print(
            f"  {database}: longest without a leader {gaps.overall:.1f} s; {gaps.undisturbed:.1f} s while the server"
            f" was up and the lease not locked (server down in {gaps.samples.get(DOWN, 0)} of"
            f" {sum(gaps.samples.values())} looks)"
        )
    print("promises")
    for promise, name in PROMISES.items():
        figure(name, len(verdict.of(promise)), "must be 0")
    _evidence(verdict, cluster)
    print("\nAll promises were kept." if verdict.good else "\nPromises were broken.")


def _evidence(verdict: Verdict, cluster: Cluster) -> None:
    logs = {epoch: server.log().splitlines() for epoch, server in cluster.servers.items()} if verdict.broken else {}
    for promise in PROMISES:
        broken = verdict.of(promise)
        for found in broken[:EVIDENCE]:
            print(f"\n{PROMISES[promise]}: {found.subject}\n  {found.evidence}")
            said = [f"  epoch {e}: {line}" for e, log in logs.items() for line in log if _belongs(line, found)]
            print("\n".join(line[:400] for line in said[:LOG_LINES]))
        if len(broken) > EVIDENCE:
            print(f"  … and {len(broken) - EVIDENCE} more of this kind")


def _belongs(line: str, found: Broken) -> bool:
    """Whether a line of a log speaks of the same."""
    if (found.clue or f'"{found.subject}"') not in line:
        return False
    if found.at is None:
        return True
    try:
        said = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(said - found.at) < AROUND
