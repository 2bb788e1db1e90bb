"""Bar 8: a backlog whose rows all have one and the same deadline."""

from __future__ import annotations

from bench import plots
from bench.contenders import TABLE, Contender, race, worker
from bench.figures import number, ratios, spread, thousands
from bench.report import Report, Table
from bench.stage import Stage
from bench.verdict import Check

NUMBER = 8
TITLE = "One and the same deadline"

DISTINCT, TIED, BOTH = "each its own deadline", "one deadline", "one deadline, old snapshot held"

METHOD = """\
The backlog of bar 1 ({expired:,} of {rows:,} rows), reaped with default settings: with a deadline for each
row, and with one and the same deadline for all, with and without another session's old snapshot; {times} times, each as
undisturbed as those of bar 1.
"""


def measure(stage: Stage) -> Report:
    """All three, in turn, in every repetition."""
    rows, expired = stage.options.rows(2_000_000), stage.options.rows(1_000_000)
    speeds: dict[str, list[float]] = {DISTINCT: [], TIED: [], BOTH: []}
    for repetition in range(stage.options.short_repetitions):
        distinct = race(stage, [Contender(DISTINCT, worker())], expired, rows)
        tied = race(stage, [Contender(TIED, worker()), Contender(BOTH, held)], expired, rows, True, repetition)
        for name, (speed, _) in {**distinct, **tied}.items():
            speeds[name].append(speed)
    report = Report(NUMBER, TITLE, METHOD.format(expired=expired, rows=rows, times=stage.options.short_repetitions))
    table = []
    for name, values in speeds.items():
        speed, ratio = spread(values), ratios(values, speeds[DISTINCT])
        if name != DISTINCT:
            report.checks.append(
                Check(NUMBER, f"{name} / {DISTINCT}: speed of default batches", ratio.median, "×", limit=0.5)
            )
        table.append((
            name, thousands(speed.median), f"{thousands(speed.least)}–{thousands(speed.most)}",
            f"{number(ratio.median)} ({number(ratio.least)}–{number(ratio.most)})",
        ))  # fmt: skip
    report.tables.append(Table(("expired rows", "rows/s, median", "least–most", f"of {DISTINCT}"), table))
    drawn, (axes,) = plots.figure(2.8)
    plots.contest(axes, {name: spread(values) for name, values in speeds.items()}, list(speeds), unit=1000)
    plots.bar_line(axes, spread(speeds[DISTINCT]).median / 2000, "bar: half the speed of distinct deadlines")
    axes.set_xlabel("thousand rows a second (median; dots: every measurement)")
    plots.legend(axes)
    report.plots["one-deadline"] = drawn
    report.alt["one-deadline"] = "Rows a second where all expired rows have one deadline"
    return report


def held(stage: Stage, rows: int) -> float:
    """The worker, while another session holds a snapshot of before."""
    with stage.old_snapshot(TABLE):
        return worker()(stage, rows)
