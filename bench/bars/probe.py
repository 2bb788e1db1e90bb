"""Bar 3: what it costs to look where nothing has expired."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from bench import plots, reaper
from bench.figures import number, spread
from bench.probing import Probes, probes
from bench.report import Report, Table
from bench.stage import FILL, Stage, timed
from bench.verdict import AT_MOST, UNDER, Check

NUMBER = 3
TITLE = "Nothing expired"

TABLE = "quiet"
INTERVAL = "250ms"
CALLS = 200
LEAST_MS = 0.05
HEADER = (
    "table", "buffers a probe", "dearest probe", "ms a probe", "ms of CPU, dearest cycle", "ms for pg_reaper_sweep()",
)  # fmt: skip

METHOD = f"""\
A table in which nothing has expired, of growing size. Buffers are those of the table and its indexes (hit or read)
that PostgreSQL counts (`pg_statio_user_tables`) from one sweep of the worker to the next, with an `interval` of
{INTERVAL} (they come once a second, for several sweeps). The time of a probe is how much more CPU time a cycle of the
worker takes than one without the table ({{without:.2f}} ms), with `leadership = advisory`, so that no renewal of the
lease is in it; less than {LEAST_MS} ms cannot be told apart from nothing, and counts as that. Beside it stands the
round trip of `SELECT pg_reaper_sweep('{TABLE}')` from a client. Then {{expired:,}} expired rows are added to the
largest table and reaped while another session holds an old snapshot, and the same is measured again while it is held,
at the default `interval`. The medians count; the dearest of all probes is shown too.
"""


def measure(stage: Stage) -> Report:
    """From small to large, then after many deletions."""
    sizes = sorted({stage.options.rows(full) for full in (10_000, 100_000, 1_000_000, 10_000_000)})
    expired = stage.options.rows(1_000_000)
    idle: dict[int, Probes] = {}
    trips: dict[int, float] = {}
    try:
        stage.set(**{"pg_reaper.leadership": "advisory", "pg_reaper.interval": INTERVAL})
        without = cycle_without(stage)
        for size in sizes:
            stage.table(TABLE, size, 0)
            reaper.afresh(stage)
            with reaper.loose(stage):
                idle[size] = probes(stage, TABLE, stage.options.seconds(10, least=6))
            trips[size] = round_trip(stage)
            say(stage, f"{size:,} rows", idle[size])
        after = after_deletions(stage, sizes[-1], expired)
    finally:
        stage.set(**{"pg_reaper.leadership": None, "pg_reaper.interval": None})
    report = Report(NUMBER, TITLE, METHOD.format(expired=expired, without=without))
    small, large = idle[sizes[0]], idle[sizes[-1]]

    def probe_ms(found: Probes) -> float:
        """How much more a cycle takes than without the table."""
        return max(found.cycle_ms.median - without, LEAST_MS)

    later = f"the same after {expired:,} deletions under an old snapshot"
    report.checks = [
        Check(NUMBER, f"probe of {sizes[-1]:,} rows", large.buffers.median, "buffers", AT_MOST, 10),
        Check(NUMBER, f"probe of {sizes[-1]:,} rows: its time", probe_ms(large), "ms", UNDER, 1),
        Check(
            NUMBER, f"its time, from {sizes[0]:,} to {sizes[-1]:,} rows (2 stands for: does not grow)",
            probe_ms(large) / probe_ms(small), "×", AT_MOST, 2,
        ),
        Check(NUMBER, later, after.buffers.median, "buffers", AT_MOST, 10),
        Check(NUMBER, f"{later}: its time", probe_ms(after), "ms", UNDER, 1),
    ]  # fmt: skip
    rows = [row(f"{size:,} rows", found, probe_ms(found), number(trips[size])) for size, found in idle.items()]
    rows.append(row(f"{sizes[-1]:,} rows, after {expired:,} deletions", after, probe_ms(after), ""))
    report.tables.append(Table(HEADER, rows))
    points = {size: (found.buffers.median, probe_ms(found)) for size, found in idle.items()}
    report.plots["probe"] = draw(points, (after.buffers.median, probe_ms(after)), expired)
    report.alt["probe"] = "Buffers and time of a probe, from small tables to large"
    return report


def say(stage: Stage, what: str, found: Probes) -> None:
    """A line of progress."""
    stage.say(f"{what}: {found.buffers.median:g} buffers a probe, {found.cycle_ms.median:.2f} ms a cycle")


def row(what: str, found: Probes, probe_ms: float, trip: str) -> tuple[str, ...]:
    """One line of the table."""
    return (what, *map(number, (found.buffers.median, found.buffers.most, probe_ms, found.cycle_ms.most)), trip)


def cycle_without(stage: Stage) -> float:
    """The CPU milliseconds of a cycle with nothing but the table that the extension brings along."""
    with stage.session() as session:
        session.execute(f"DROP TABLE IF EXISTS {TABLE}")
    reaper.afresh(stage)
    with reaper.loose(stage):
        return probes(stage, "pg_barrier_state", stage.options.seconds(10, least=6)).cycle_ms.median


def round_trip(stage: Stage) -> float:
    """The median of the milliseconds that a sweep by hand takes."""
    with stage.session() as session:
        call = f"SELECT pg_reaper_sweep('{TABLE}')"
        times = [timed(lambda: session.execute(call)) * 1000 for _ in range(CALLS)]
    return spread(times).median


def after_deletions(stage: Stage, size: int, expired: int) -> Probes:
    """Probes by a worker that has just reaped a backlog whose dead rows nobody may remove."""
    with stage.session() as session:
        session.execute(FILL.format(table=TABLE).replace("'run-'", "'old-'"),
                        {"rows": expired, "expired": expired, "tied": False})  # fmt: skip
        session.execute("CHECKPOINT")
    stage.set(**{"pg_reaper.interval": None})
    reaper.afresh(stage)
    found: list[Probes] = []

    def watch_on() -> None:
        found.append(probes(stage, TABLE, stage.options.seconds(60, least=40)))

    with stage.old_snapshot(TABLE):
        reaper.drain(stage, expired, afterwards=watch_on)
    stage.check(TABLE, size)
    say(stage, "after deletions", found[0])
    return found[0]


def draw(idle: Mapping[int, tuple[float, float]], after: tuple[float, float], expired: int) -> Figure:
    """Buffers on the left, time on the right."""
    drawn, panels = plots.figure(3.6, columns=2)
    sizes = list(idle)
    for place, (label, limit) in enumerate((("buffers a probe", 10), ("milliseconds a probe", 1))):
        axes, medians = panels[place], [found[place] for found in idle.values()]
        axes.plot(sizes, medians, "o-", color=plots.OURS, label="nothing ever expired")
        axes.plot(
            [sizes[-1]], [after[place]], "D", color=plots.QUIET, label=f"after {expired:,} deletions, snapshot held"
        )
        plots.bar_line(axes, limit, "bar", across=True)
        axes.set(xscale="log", xlabel="rows in the table", ylabel=label)
        if max(*medians, after[place]) > 5 * limit:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, max(*medians, after[place], limit) * 1.15)
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3)
    return drawn
