"""Bar 4: how long after its deadline a row goes, on an idle server."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

import numpy
from matplotlib.figure import Figure

from bench import plots, reaper
from bench.figures import number, percentile
from bench.gone import lateness
from bench.report import Report, Table
from bench.stage import Stage
from bench.verdict import UNDER, Check

NUMBER = 4
TITLE = "Lateness"

TABLE = "deadlines"
LISTED = f"SELECT execution_id FROM {TABLE}"
INSERT = f"INSERT INTO {TABLE} VALUES (%s, 'org', 1, now(), to_timestamp(%s))"
EARLY, SHORT = "known an interval ahead", "armed with less than an interval"
INTERVAL_SECONDS = 5.0

METHOD = """\
An idle server, all settings of pg_reaper at their defaults (`interval` = {interval:g} s). {early} rows whose
deadlines, at random within {span:.0f} s, were committed at least one interval ahead; then {short} rows, one after the
other, each armed with less than an interval to go. Lateness is not pg_reaper's own word: a session lists the
table every 2 ms, and takes the time at which it finds the row gone, the commit included; that is up to some
milliseconds too much, and never too little.
"""


def measure(stage: Stage) -> Report:
    """First the deadlines that were known, then the short ones."""
    span = stage.options.seconds(30, least=8)
    early, short = max(round(15 * span), 100), max(round(4 * span), 20)
    stage.table(TABLE, 1000, 0)
    stage.server.execute(f"TRUNCATE {TABLE}")
    reaper.afresh(stage)
    with reaper.loose(stage):
        found = {EARLY: known(stage, early, span)}
        stage.say(f"{EARLY}: p99 {percentile(found[EARLY], 0.99) * 1000:,.0f} ms")
        found[SHORT] = armed_short(stage, short, span)
        stage.say(f"{SHORT}: worst {max(found[SHORT]) * 1000:,.0f} ms")
    report = Report(
        NUMBER, TITLE, METHOD.format(interval=INTERVAL_SECONDS, early=early, short=short, span=span)
    )
    report.checks = [
        Check(NUMBER, f"p99 where the deadline was {EARLY}", percentile(found[EARLY], 0.99) * 1000, "ms", UNDER, 50),
        Check(
            NUMBER, f"worst of those {SHORT}", max(found[SHORT]) * 1000, "ms", UNDER, INTERVAL_SECONDS * 1000
        ),
    ]  # fmt: skip
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("worst", 1.0))
    rows = [
        (name, str(len(values)), *(number(percentile(values, share) * 1000) for _, share in shares))
        for name, values in found.items()
    ]
    report.tables.append(Table(("deadline", "rows", *(f"{name}, ms" for name, _ in shares)), rows))
    report.plots["lateness"] = draw(found)
    report.alt["lateness"] = "Share of rows gone by so many milliseconds after their deadline"
    return report


def known(stage: Stage, rows: int, span: float) -> list[float]:
    """Rows with deadlines that the worker can know of well before."""
    first = time.time() + INTERVAL_SECONDS + 2
    deadlines = {f"early-{n}": first + random.uniform(0, span) for n in range(rows)}
    with stage.session() as session:
        session.cursor().executemany(INSERT, list(deadlines.items()))
    if time.time() > first - INTERVAL_SECONDS:
        raise RuntimeError("it took too long to insert rows an interval ahead of their deadlines")
    return list(lateness(stage, LISTED, deadlines, 3 * INTERVAL_SECONDS).values())


def armed_short(stage: Stage, rows: int, span: float) -> list[float]:
    """Rows armed one by one, each with a share of an interval to go."""
    began = time.monotonic()
    armed = 0
    with stage.session() as session:

        def arm() -> dict[str, float] | None:
            nonlocal armed
            if armed == rows:
                return None
            if time.monotonic() < began + span * armed / rows:
                return {}
            name, deadline = f"short-{armed}", time.time() + random.uniform(0.05, 0.95) * INTERVAL_SECONDS
            session.execute(INSERT, [name, deadline])
            armed += 1
            return {name: deadline}

        return list(lateness(stage, LISTED, {}, 3 * INTERVAL_SECONDS, arm).values())


def draw(found: Mapping[str, list[float]]) -> Figure:
    """The share of rows gone by then."""
    drawn, (axes,) = plots.figure(3.8)
    for (name, values), colour in zip(found.items(), (plots.OURS, plots.QUIET), strict=True):
        ordered = numpy.sort(values) * 1000
        gone = numpy.arange(1, len(ordered) + 1) / len(ordered) * 100
        axes.step(ordered, gone, where="post", color=colour, label=name)
    plots.bar_line(axes, 50, "bar: p99 under 50 ms")
    short_bar = "bar where armed with less: the interval"
    axes.axvline(INTERVAL_SECONDS * 1000, color=plots.BAR, linestyle=":", label=short_bar)
    axes.axhline(99, color="#57606a", linewidth=0.8)
    axes.annotate("99 %", (1, 99), xycoords=("axes fraction", "data"), xytext=(-4, -12), textcoords="offset points",
                  ha="right", color="#57606a")  # fmt: skip
    axes.set(xscale="log", xlabel="milliseconds after the deadline", ylabel="rows gone by then, %", ylim=(0, 102))
    plots.legend(axes)
    return drawn
