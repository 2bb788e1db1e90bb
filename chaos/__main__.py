"""Runs it: python -m chaos [--minutes N] [--seed S] [--schedule]."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from harness import installation, wait_until

from chaos import report, schedule
from chaos.checker import judge
from chaos.clients import Clients
from chaos.cluster import Cluster
from chaos.collect import collect, wait_until_quiet
from chaos.ledger import WORKER, Ledger
from chaos.nemesis import Nemesis
from chaos.outside_reaper import OutsideReaper
from chaos.row_collect import collect_rows, mend, wait_until_reaped
from chaos.row_writers import RowWriters
from chaos.scene import CONFIG, Scene, prepare
from chaos.tables import TABLES
from chaos.watch import Watch
from chaos.writers import Writers

KEPT = Path(__file__).resolve().parents[1] / "target/chaos"

# A policy that failed is tried again a minute later at the latest.
QUIET_SECONDS = 90.0
# A row in quarantine is tried again after as long as it has been there; five times that, if the interval
# was as much longer for a while.
QUARANTINE_SECONDS = 240.0


def main() -> int:
    """The exit status: 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="chaos", description="Faults, and a checker.")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--schedule", action="store_true", help="only print the faults to come")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    faults = schedule.draw(seed, options.minutes)
    version = installation.major_version()
    print(f"chaos for {options.minutes:g} minutes on PostgreSQL {version}, seed {seed}", flush=True)
    if options.schedule:
        print(*faults, sep="\n")
        return 0
    # Ends as Ctrl-C does: with everything stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return run(seed, options.minutes, faults)


def run(seed: int, minutes: float, faults: list[schedule.Fault]) -> int:
    """The whole play, on servers of its own."""
    ledger, began = Ledger(), time.monotonic()
    ledger.facts.shortest_lease = schedule.SHORTEST_LEASE_SECONDS

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}] {what}", flush=True)

    with ExitStack() as stack:
        cluster = Cluster(CONFIG)
        stack.callback(cluster.close)
        cluster.start()
        scenes = prepare(cluster.primary)
        for scene in scenes:
            say(f"{scene.database}: lease {scene.lease}" + (", shared with an outside reaper" if scene.outside else ""))
        cluster.build_standby()
        watches = [Watch(cluster, scene) for scene in scenes]
        writers: list[Clients] = [Writers(cluster, scene.database, ledger, seed) for scene in scenes]
        writers += [RowWriters(cluster, scene.database, table, ledger, seed) for scene in scenes for table in TABLES]
        outsiders = [OutsideReaper(cluster, scene, seed) for scene in scenes if scene.outside]
        nemesis = Nemesis(cluster, scenes, ledger, say)
        wait_for_leaders(cluster, scenes)
        stack.callback(nemesis.heal)
        for each in (*watches, *writers, *outsiders):
            each.start()
        nemesis.run(faults, minutes * 60)
        nemesis.heal()
        say("the faults are over; waiting for the last orphans and due rows")
        for writer in writers:
            writer.stop(30)
        for outsider in outsiders:
            outsider.stop()
        quiet = time.monotonic()
        cluster.wait_until_up()
        mend(cluster, scenes)
        wait_until_quiet(cluster, scenes, QUIET_SECONDS)
        wait_until_reaped(cluster, scenes, QUARANTINE_SECONDS)
        say(f"quiet after {time.monotonic() - quiet:.1f} s")
        for watch in watches:
            watch.stop()
        collect(cluster, scenes, ledger.facts)
        collect_rows(cluster, scenes, ledger.facts.rows)
        verdict = judge(ledger.facts)
        report.show(ledger.facts, verdict, nemesis, watches, cluster)
        if not verdict.good:
            keep(cluster, seed)
        print(f"seed {seed}")
        if not any(deletion.who == WORKER for deletion in ledger.facts.deletions):
            print("pg_reaper has reaped nothing, so nothing was shown")
            return 1
        if not (ledger.facts.rows.reapings and ledger.facts.rows.put):
            print("no policy has reaped rows and put others into quarantine, so nothing was shown of that")
            return 1
        return 0 if verdict.good else 1


def wait_for_leaders(cluster: Cluster, scenes: list[Scene]) -> None:
    """Waits until every database has a leader: what comes after is the faults' doing."""
    for scene in scenes:
        wait_until(
            lambda scene=scene: cluster.primary.value(f"SELECT leader FROM {scene.lease}", dbname=scene.database),
            bool, f"a leader in {scene.database}",
        )  # fmt: skip


def keep(cluster: Cluster, seed: int) -> None:
    """Keeps the servers' logs for whoever looks into it."""
    folder = KEPT / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for epoch, server in cluster.servers.items():
        (folder / f"epoch-{epoch}.log").write_text(server.log())
    print(f"The logs of the servers are in {folder}.")


if __name__ == "__main__":
    sys.exit(main())
