"""Bar 6: what it costs while there is nothing to do."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
from harness import Server
from harness.reaper import wait_for
from matplotlib.figure import Figure

from bench import plots
from bench.figures import number
from bench.processes import cpu_seconds
from bench.report import Report, Table
from bench.stage import CONFIG, Stage
from bench.verdict import AT_MOST, Check

NUMBER = 6
TITLE = "Idle"

NOTHING, LEASE, ADVISORY = "no pg_reaper", "leadership = lease", "leadership = advisory"
SERVERS: dict[str, dict[str, str]] = {
    NOTHING: {},
    LEASE: {"pg_reaper.leadership": "lease"},
    ADVISORY: {"pg_reaper.leadership": "advisory"},
}
# Checkpoints come as often as they do by default: after each, a page is written in full once.
IDLE_CONFIG = {
    **CONFIG, "shared_buffers": "128MB", "checkpoint_timeout": "5min", "autovacuum": "off", "pg_reaper.enabled": "on",
}  # fmt: skip

SETTLED_SECONDS = 18

METHOD = """\
Three idle servers beside each other, for {seconds:.0f} seconds: one without pg_reaper, one for each kind of
leadership, all settings of pg_reaper at their defaults and nothing in its tables. WAL and transaction ids are
those of the whole server; CPU is that of the launcher and the worker together, as the kernel counts it. Checkpoints
come every 5 minutes, as by default; autovacuum is off, so that nothing is counted that pg_reaper does not do.
"""


@dataclass
class Cost:
    """All until now, or what came in between."""

    wal: float
    xids: float
    cpu: float

    def since(self, before: Cost) -> Cost:
        """What came in between."""
        return Cost(self.wal - before.wal, self.xids - before.xids, self.cpu - before.cpu)


class Idler:
    """A server with nothing to do, and the one session that looks at it at the beginning and the end."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        reaping = name != NOTHING
        settings = {key: value for key, value in IDLE_CONFIG.items() if reaping or not key.startswith("pg_reaper.")}
        server = Server({**settings, **SERVERS[name]}, preload=reaping, extension=reaping, name=name)
        self.server = stack.enter_context(server)
        self.pids: list[int] = []
        if reaping:
            wait_for(self.server, "leader")
            launcher = self.server.launcher_pid()
            self.pids = [*self.server.worker_pids(), *([launcher] if launcher else [])]
        self.session: psycopg.Connection[Any] = self.server.connect()
        self.cost()  # what the session has to read for it is read
        self.session.execute("CHECKPOINT")

    def cost(self) -> Cost:
        """All until now; asking takes no transaction id and writes nothing."""
        query = (
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,"
            " pg_snapshot_xmax(pg_current_snapshot())::text::float8"
        )
        wal, xids = self.session.execute(query).fetchone()
        return Cost(wal, xids, sum(cpu_seconds(pid) for pid in self.pids))


def settle(stage: Stage, idlers: list[Idler]) -> None:
    """Waits until what start and checkpoint left to be written is written: PostgreSQL's own background
    writer adds a record up to 15 s after the last one of somebody else."""
    ends = time.monotonic() + 3 * SETTLED_SECONDS
    seen, since = [], 0.0
    while time.monotonic() < ends:
        now = [idler.cost().wal for idler in idlers]
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > SETTLED_SECONDS:
            return
        time.sleep(0.5)
    stage.say("an idle server writes WAL")


def measure(stage: Stage) -> Report:
    """Waits, mostly."""
    seconds = stage.options.idle_seconds
    with ExitStack() as stack:
        idlers = {name: Idler(stack, name) for name in SERVERS}
        settle(stage, [idlers[NOTHING], idlers[ADVISORY]])
        before = {name: idler.cost() for name, idler in idlers.items()}
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            stage.say(f"idle for another {left:.0f} s")
            time.sleep(min(left, 60))
        costs = {name: idler.cost().since(before[name]) for name, idler in idlers.items()}
        for name, idler in idlers.items():
            gone = [pid for pid in idler.pids if pid not in idler.server.children()]
            if gone:
                raise RuntimeError(f"a process of {name} did not live through it")
    report = Report(NUMBER, TITLE, METHOD.format(seconds=seconds))
    report.checks = [
        Check(NUMBER, f"WAL in {seconds:.0f} s, {ADVISORY}", costs[ADVISORY].wal, "bytes", AT_MOST, 0),
        Check(NUMBER, f"transaction ids in {seconds:.0f} s, {ADVISORY}", costs[ADVISORY].xids),
        Check(NUMBER, f"WAL in {seconds:.0f} s, {LEASE}", costs[LEASE].wal, "bytes"),
        Check(NUMBER, f"transaction ids in {seconds:.0f} s, {LEASE}", costs[LEASE].xids),
        *(Check(NUMBER, f"CPU in {seconds:.0f} s, {name}", costs[name].cpu, "s") for name in (LEASE, ADVISORY)),
    ]
    report.tables.append(Table(
        ("server", "WAL, bytes", "transaction ids", "CPU seconds", "CPU, share of a core"),
        [
            (name, number(cost.wal), number(cost.xids), number(cost.cpu), f"{cost.cpu / seconds * 100:.3f} %")
            for name, cost in costs.items()
        ],
    ))  # fmt: skip
    report.plots["idle"] = draw(costs, seconds)
    report.alt["idle"] = "WAL, transaction ids and CPU of idle servers"
    return report


def draw(costs: dict[str, Cost], seconds: float) -> Figure:
    """One panel for each kind of cost."""
    drawn, panels = plots.figure(2.4, columns=3, sharey=True)
    units = (
        ("WAL, kB", lambda cost: cost.wal / 1000),
        ("transaction ids", lambda cost: cost.xids),
        ("CPU, ms", lambda cost: cost.cpu * 1000),
    )
    for axes, (label, value) in zip(panels, units, strict=True):
        lengths = [value(cost) for cost in costs.values()]
        axes.barh(list(costs), lengths, color=[plots.PEERS, plots.OURS, plots.OURS], height=0.6)
        for place, length in enumerate(lengths):
            axes.annotate(number(length), (length, place), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, max(*lengths, 1) * 1.3)
        axes.set_xlabel(f"{label} in {seconds:.0f} s")
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    return drawn
