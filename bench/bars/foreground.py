"""Bar 5: what the foreground feels of a backlog being reaped."""

from __future__ import annotations

import time
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import pgbench, plots, reaper
from bench.contenders import TABLE
from bench.figures import number, percentile, ratios, spread
from bench.report import Report, Table
from bench.stage import DEFAULT_DUTY_CYCLE, Stage
from bench.verdict import AT_MOST, Check

NUMBER = 5
TITLE = "Foreground latency"

SHARE = 0.99
LEAD_IN_SECONDS = 3.0
# How long each has its turn, and how much of that does not count: what was begun before ends then.
TURN_SECONDS, SETTLING_SECONDS = 4.0, 0.25
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 600.0
# A p99 changes more from one time to the next than other figures.
MORE_REPETITIONS = 2

METHOD = """\
pgbench (`simple-update`, scale {scale}, {clients} clients, {rate} transactions a second due at random
times, which is {share:.0%} of what it reaches here when nothing holds it back; latency counted from when each was due)
while a backlog of {expired:,} of {rows:,} rows drains at default settings (so the worker rests, `duty_cycle` = {duty_cycle}),
and without the reaper. The two take turns of {turn:g} seconds within one run of pgbench, for the machine's own speed
changes more from one minute to the next than the reaper changes it: the worker is switched off and on again
(`pg_reaper.enabled`) until the backlog is gone. Each side's p99 is that of all transactions that ended in its turns,
but for the first {settling:g} s of each. Each run starts with a checkpoint and {lead:g} seconds that do not count.
"""

# Transactions as (seconds since the first turn began, milliseconds).
Transactions = list[tuple[float, float]]


@dataclass
class Pair:
    """One run, in which the load had turns without the reaper and turns with it."""

    without: Transactions
    during: Transactions
    # From when to when the worker was loose.
    turns: list[tuple[float, float]]
    # Rows gone by then.
    progress: list[tuple[float, int]]

    @property
    def seconds(self) -> float:
        """How long the backlog took, without the turns in which it waited."""
        return sum(end - begin for begin, end in self.turns)

    def p99(self) -> tuple[float, float]:
        """Without, and while the backlog drained."""
        one, other = (percentile(pgbench.latencies(side), SHARE) for side in (self.without, self.during))
        return one, other


def measure(stage: Stage) -> Report:
    """The pairs."""
    rows, expired = stage.options.rows(2_000_000), stage.options.rows(1_000_000)
    rate = pgbench.prepare(stage.server, stage.options.seconds(8))
    stage.say(f"{rate} transactions a second")
    pairs: list[Pair] = []
    stage.set(**{"pg_reaper.duty_cycle": DEFAULT_DUTY_CYCLE})
    for _ in range(stage.options.repetitions + MORE_REPETITIONS):
        stage.table(TABLE, rows, expired)
        reaper.afresh(stage)
        pairs.append(by_turns(stage, rate, expired))
        stage.check(TABLE, rows - expired)
        one, other = pairs[-1].p99()
        stage.say(f"p99 {one:.2f} ms without, {other:.2f} ms while draining for {pairs[-1].seconds:.1f} s")
    stage.set(**{"pg_reaper.duty_cycle": None})
    method = METHOD.format(
        scale=pgbench.TABLES_SCALE, clients=pgbench.CLIENTS, rate=rate, share=pgbench.SHARE_OF_MOST, rows=rows,
        expired=expired, turn=TURN_SECONDS, settling=SETTLING_SECONDS, lead=LEAD_IN_SECONDS,
        duty_cycle=DEFAULT_DUTY_CYCLE,
    )  # fmt: skip
    return report(method, pairs, expired)


def report(method: str, pairs: list[Pair], expired: int) -> Report:
    """Ratios pair by pair, the drains, the plot of the pair in the middle."""
    without, during = (spread(values) for values in zip(*(pair.p99() for pair in pairs), strict=True))
    ratio = ratios(during.values, without.values)
    drains = spread([pair.seconds for pair in pairs])
    done = Report(NUMBER, TITLE, method)
    done.checks = [
        Check(NUMBER, "p99 while a backlog drains / without the reaper", ratio.median, "×", AT_MOST, 1.25),
        Check(NUMBER, f"until {expired:,} rows are drained meanwhile", drains.most, "s", AT_MOST, PATIENCE_SECONDS),
    ]
    lines = (
        ("p99 without the reaper, ms", without), ("p99 while the backlog drains, ms", during), ("ratio", ratio),
        ("duration of the drain, s", drains), ("rows drained a second", spread([expired / each for each in drains.values])),
        ("transactions without", spread([len(pair.without) for pair in pairs])),
        ("transactions during the drain", spread([len(pair.during) for pair in pairs])),
    )  # fmt: skip
    rows = [(what, *map(number, (found.median, found.least, found.most))) for what, found in lines]
    done.tables.append(Table((f"{len(pairs)} pairs", "median", "least", "most"), rows))
    middle = min(range(len(pairs)), key=lambda place: abs(ratio.values[place] - ratio.median))
    done.plots["foreground"] = draw(pairs[middle], list(zip(without.values, during.values, strict=True)))
    done.alt["foreground"] = "Latency of the foreground over time, with and without a backlog draining, by turns"
    return done


def by_turns(stage: Stage, rate: int, expired: int) -> Pair:
    """The load alone and the load while the worker drains the backlog, one turn each, until it is gone."""
    stage.server.execute("CHECKPOINT")
    alone: list[tuple[float, float]] = []
    turns: list[tuple[float, float]] = []
    progress: list[tuple[float, int]] = []
    with pgbench.load(stage.server, rate) as running, stage.session() as session:
        pgbench.wait(running, LEAD_IN_SECONDS)
        began = time.time()

        def now() -> float:
            return time.time() - began

        def counted() -> int:
            return int(session.execute(reaper.COUNTER).fetchone()[1])

        before = counted()
        while not progress or progress[-1][1] < expired:
            if sum(end - begin for begin, end in turns) > PATIENCE_SECONDS:
                raise RuntimeError(f"{progress[-1][1]} of {expired} rows reaped in {PATIENCE_SECONDS:g} s")
            from_then = now()
            pgbench.wait(running, TURN_SECONDS)
            alone.append((from_then, now()))
            with reaper.loose(stage):
                from_then = now()
                while now() < from_then + TURN_SECONDS and (not progress or progress[-1][1] < expired):
                    pgbench.wait(running, POLL_SECONDS)
                    progress.append((now(), counted() - before))
                turns.append((from_then, now()))
    without, during = (settled(running, began, spans) for spans in (alone, turns))
    return Pair(without, during, turns, progress)


def settled(running: pgbench.Load, began: float, spans: list[tuple[float, float]]) -> Transactions:
    """The transactions that ended in these turns, but for their beginnings."""
    return [
        (at - began, latency)
        for begin, end in spans
        for at, latency in running.between(began + begin + SETTLING_SECONDS, began + end)
    ]


def draw(pair: Pair, p99s: list[tuple[float, float]]) -> Figure:
    """Latency over time of one pair with the drain's progress, and the p99 of all pairs."""
    drawn = Figure(figsize=(9, 6.2), layout="constrained")
    latency, progress, all_pairs = _panels(drawn)
    for transactions, colour, label in (
        (pair.without, plots.PEERS, "without the reaper"), (pair.during, plots.OURS, "with it"),
    ):  # fmt: skip
        points = tuple(zip(*transactions, strict=True))
        # Thousands of dots: as an image within the SVG they are small.
        latency.plot(*points, ".", markersize=2.5, alpha=0.6, color=colour, label=label, rasterized=True)
    for place, turn in enumerate(pair.turns):
        latency.axvspan(*turn, color=plots.OURS, alpha=0.08, label=None if place else "while the backlog drains")
    latency.set(yscale="log", ylabel="ms, each transaction", title="latency, the pair in the middle")
    latency.yaxis.set_major_formatter("{x:g}")
    times = [0.0, *(at for at, _ in pair.progress)]
    progress.plot(times, [0.0, *(rows / 1000 for _, rows in pair.progress)], color=plots.OURS)
    progress.set(xlabel="seconds since the first turn began", ylabel="thousand rows\nreaped", ylim=(0, None))
    _all_pairs(all_pairs, p99s)
    both = [axes.get_legend_handles_labels() for axes in (latency, all_pairs)]
    handles, labels = (sum(parts, []) for parts in zip(*both, strict=True))
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, markerscale=4)
    return drawn


def _panels(drawn: Figure) -> tuple[Axes, Axes, Axes]:
    grid = drawn.add_gridspec(3, 3)
    latency = drawn.add_subplot(grid[:2, :2])
    progress = drawn.add_subplot(grid[2, :2], sharex=latency)
    return latency, progress, drawn.add_subplot(grid[:, 2])


def _all_pairs(axes: Axes, p99s: list[tuple[float, float]]) -> None:
    for without, during in p99s:
        axes.plot([0, 1], [without, during], "o-", color=plots.OURS, alpha=0.7)
    middle = spread([without for without, _ in p99s]).median
    plots.bar_line(axes, 1.25 * middle, "bar: 1.25 of the median without", across=True)
    axes.set(xticks=[0, 1], xticklabels=["without", "draining"], xlim=(-0.3, 1.3), title="p99, every pair", ylabel="ms")
    most = max(1.25 * middle, *(ms for pair in p99s for ms in pair))
    axes.set_ylim(0, 1.08 * most)
