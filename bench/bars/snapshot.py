"""Bar 2: how fast a backlog goes while another session holds an old snapshot."""

from __future__ import annotations

from contextlib import nullcontext

from matplotlib.figure import Figure

from bench import plots, reaper
from bench.contenders import TABLE
from bench.figures import number, ratios, spread, thousands
from bench.reaper import Drain
from bench.report import Report, Table
from bench.stage import Stage
from bench.verdict import Check

NUMBER = 2
TITLE = "With an old snapshot held"

WITHOUT, WITH = "no snapshot", "snapshot held by another session"

METHOD = """\
The backlog of bar 1 ({expired:,} of {rows:,} rows), reaped with default settings: once as it is, once while
another session's transaction (`REPEATABLE READ`), begun before the first deletion, still sees every row, so that
no entry of a deleted row may be removed from the index. The two take turns in going first, {times} times.
"""


def measure(stage: Stage) -> Report:
    """Both, repetition by repetition."""
    rows, expired = stage.options.rows(2_000_000), stage.options.rows(1_000_000)
    drains: dict[str, list[Drain]] = {WITHOUT: [], WITH: []}
    for repetition in range(stage.options.short_repetitions):
        order = list(drains)[:: -1 if repetition % 2 else 1]
        for name in order:
            stage.other_table()
            stage.table(TABLE, rows, expired)
            reaper.warm(stage, TABLE)
            with stage.old_snapshot(TABLE) if name == WITH else nullcontext():
                drains[name].append(reaper.drain(stage, expired))
            stage.check(TABLE, rows - expired)
            stage.say(f"{name}: {drains[name][-1].speed:,.0f} rows/s")
    speeds = {name: [each.speed for each in runs] for name, runs in drains.items()}
    ratio = ratios(speeds[WITH], speeds[WITHOUT])
    report = Report(NUMBER, TITLE, METHOD.format(expired=expired, rows=rows, times=stage.options.short_repetitions))
    report.checks.append(Check(NUMBER, "speed with an old snapshot / without", ratio.median, "×", limit=0.9))
    report.tables.append(Table(
        ("pg_reaper, default settings", "rows/s, median", "least–most", "of its speed without"),
        [
            (
                name, thousands(spread(values).median),
                f"{thousands(spread(values).least)}–{thousands(spread(values).most)}",
                f"{number(ratio.median)} ({number(ratio.least)}–{number(ratio.most)})" if name == WITH else "1",
            )
            for name, values in speeds.items()
        ],
    ))  # fmt: skip
    report.plots["old-snapshot"] = draw(drains)
    report.alt["old-snapshot"] = "Rows reaped over time, with and without an old snapshot held"
    return report


def draw(drains: dict[str, list[Drain]]) -> Figure:
    """Rows gone over time, every repetition a line."""
    drawn, (axes,) = plots.figure(3.8)
    for (name, runs), colour in zip(drains.items(), (plots.QUIET, plots.OURS), strict=True):
        for number_of, run in enumerate(runs):
            times = [0.0, *(at for at, _ in run.progress)]
            gone = [0.0, *(rows / 1000 for _, rows in run.progress)]
            axes.plot(times, gone, color=colour, alpha=0.8, linewidth=1.3, label=name if not number_of else None)
    typical = spread([run.seconds for run in drains[WITHOUT]]).median
    rows = drains[WITHOUT][0].rows / 1000
    axes.plot([0, typical / 0.9], [0, rows], color=plots.BAR, linestyle="--", label="bar: 0.9 of the speed without")
    axes.set(xlabel="seconds since the worker was let loose", ylabel="thousand rows reaped")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    plots.legend(axes)
    return drawn
