"""Bar 5: what the foreground feels of a backlog being reaped."""

from __future__ import annotations

import time
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import pgbench, plots, reaper
from bench.contenders import TABLE
from bench.figures import number, percentile, ratios, spread
from bench.reaper import Drain
from bench.report import Report, Table
from bench.stage import DEFAULT_DUTY_CYCLE, Stage
from bench.verdict import AT_MOST, Check

NUMBER = 5
TITLE = "Foreground latency"

SHARE = 0.99
LEAD_IN_SECONDS = 3.0
PATIENCE_SECONDS = 600.0

METHOD = """\
pgbench (`simple-update`, scale {scale}, {clients} clients, {rate} transactions a second due at random
times, which is {share:.0%} of what it reaches here when nothing holds it back; latency counted from when each was due)
while a backlog of {expired:,} of {rows:,} rows drains at default settings (so the worker rests, `duty_cycle` = {duty_cycle}),
and without the reaper, in pairs that take turns in going first. The p99 with the reaper is that of the transactions
that ended while the backlog drained, and only those; the one without is over {quiet:.0f} seconds. Each run starts
with a checkpoint and {lead:g} seconds that do not count.
"""


@dataclass
class Pair:
    """One run without the reaper, one with it: transactions as (seconds since the measured span began,
    milliseconds)."""

    without: list[tuple[float, float]]
    during: list[tuple[float, float]]
    drain: Drain

    def drained(self) -> list[float]:
        """The latencies of the transactions that ended while the backlog drained."""
        return [latency for at, latency in self.during if 0 <= at <= self.drain.seconds]

    def p99(self) -> tuple[float, float]:
        """Without, and while the backlog drained."""
        one = percentile(pgbench.latencies(self.without), SHARE)
        return one, percentile(self.drained(), SHARE)


def measure(stage: Stage) -> Report:
    """The pairs."""
    rows, expired = stage.options.rows(2_000_000), stage.options.rows(1_000_000)
    quiet = stage.options.seconds(15)
    rate = pgbench.prepare(stage.server, stage.options.seconds(8))
    stage.say(f"{rate} transactions a second")
    pairs: list[Pair] = []
    stage.set(**{"pg_reaper.duty_cycle": DEFAULT_DUTY_CYCLE})
    for repetition in range(stage.options.repetitions):
        stage.table(TABLE, rows, expired)
        reaper.afresh(stage)
        if repetition % 2:
            during, drain = with_reaper(stage, rate, expired, quiet)
            without = without_reaper(stage, rate, quiet)
        else:
            without = without_reaper(stage, rate, quiet)
            during, drain = with_reaper(stage, rate, expired, quiet)
        stage.check(TABLE, rows - expired)
        pairs.append(Pair(without, during, drain))
        one, other = pairs[-1].p99()
        stage.say(f"p99 {one:.2f} ms without, {other:.2f} ms while draining for {drain.seconds:.1f} s")
    stage.set(**{"pg_reaper.duty_cycle": None})
    method = METHOD.format(
        scale=pgbench.TABLES_SCALE, clients=pgbench.CLIENTS, rate=rate, share=pgbench.SHARE_OF_MOST, rows=rows,
        expired=expired, quiet=quiet, lead=LEAD_IN_SECONDS, duty_cycle=DEFAULT_DUTY_CYCLE,
    )  # fmt: skip
    return report(method, pairs, expired)


def report(method: str, pairs: list[Pair], expired: int) -> Report:
    """Ratios pair by pair, the drains, the plot of the pair in the middle."""
    without, during = (spread(values) for values in zip(*(pair.p99() for pair in pairs), strict=True))
    ratio = ratios(during.values, without.values)
    drains = spread([pair.drain.seconds for pair in pairs])
    done = Report(NUMBER, TITLE, method)
    done.checks = [
        Check(NUMBER, "p99 while a backlog drains / without the reaper", ratio.median, "×", AT_MOST, 1.25),
        Check(NUMBER, f"until {expired:,} rows are drained meanwhile", drains.most, "s", AT_MOST, PATIENCE_SECONDS),
    ]
    lines = (
        ("p99 without the reaper, ms", without), ("p99 while the backlog drains, ms", during), ("ratio", ratio),
        ("duration of the drain, s", drains), ("rows drained a second", spread([pair.drain.speed for pair in pairs])),
        ("transactions during the drain", spread([len(pair.drained()) for pair in pairs])),
    )  # fmt: skip
    rows = [(what, *map(number, (found.median, found.least, found.most))) for what, found in lines]
    done.tables.append(Table((f"{len(pairs)} pairs", "median", "least", "most"), rows))
    middle = min(range(len(pairs)), key=lambda place: abs(ratio.values[place] - ratio.median))
    done.plots["foreground"] = draw(pairs[middle], list(zip(without.values, during.values, strict=True)))
    done.alt["foreground"] = "Latency of the foreground over time, with and without a backlog draining"
    return done


def without_reaper(stage: Stage, rate: int, seconds: float) -> list[tuple[float, float]]:
    """The load alone."""
    stage.server.execute("CHECKPOINT")
    with pgbench.load(stage.server, rate) as running:
        pgbench.wait(running, LEAD_IN_SECONDS)
        began = time.time()
        pgbench.wait(running, seconds)
        ended = time.time()
    return [(at - began, latency) for at, latency in running.between(began, ended)]


def with_reaper(stage: Stage, rate: int, expired: int, seconds: float) -> tuple[list[tuple[float, float]], Drain]:
    """The load while the worker drains the backlog, and for a while after."""
    stage.server.execute("CHECKPOINT")
    with pgbench.load(stage.server, rate) as running:
        pgbench.wait(running, LEAD_IN_SECONDS)
        began = time.time()
        drain = reaper.drain(stage, expired, PATIENCE_SECONDS)
        pgbench.wait(running, max(seconds - drain.seconds, 2))
        ended = time.time()
    return [(at - began, latency) for at, latency in running.between(began, ended)], drain


def draw(pair: Pair, p99s: list[tuple[float, float]]) -> Figure:
    """Latency over time of one pair with the drain's progress, and the p99 of all pairs."""
    drawn = Figure(figsize=(9, 6.2), layout="constrained")
    latency, progress, all_pairs = _panels(drawn)
    for transactions, colour, label in (
        (pair.without, plots.PEERS, "without the reaper"), (pair.during, plots.OURS, "with it"),
    ):  # fmt: skip
        shown = [(at, ms) for at, ms in transactions if at >= 0]
        points = tuple(zip(*shown, strict=True))
        # Thousands of dots: as an image within the SVG they are small.
        latency.plot(*points, ".", markersize=2.5, alpha=0.6, color=colour, label=label, rasterized=True)
    latency.axvspan(0, pair.drain.seconds, color=plots.OURS, alpha=0.08, label="while the backlog drains")
    latency.set(yscale="log", ylabel="ms, each transaction", title="latency, the pair in the middle")
    latency.yaxis.set_major_formatter("{x:g}")
    times = [0.0, *(at for at, _ in pair.drain.progress)]
    progress.plot(times, [0.0, *(rows / 1000 for _, rows in pair.drain.progress)], color=plots.OURS)
    progress.set(xlabel="seconds since the worker was let loose", ylabel="thousand rows\nreaped", ylim=(0, None))
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
