"""Bar 1: how fast a backlog goes, beside its peers."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from bench import pace, plots
from bench.contenders import BY_INDEX, LARGE_BATCH, Contender, bare, naive, original, plan, race, sweep, worker
from bench.figures import Spread, number, ratios, spread, thousands
from bench.report import Report, Table
from bench.options import SHORT_TIMES
from bench.stage import DEFAULT_DUTY_CYCLE, Stage
from bench.verdict import Check

NUMBER = 1
TITLE = "Throughput"

BARE, OWN_PLAN, ORIGINAL = "bare DELETE, by the index", "bare DELETE, its own plan", "the original's loop"
DEFAULT, LARGE = "pg_reaper, default batches", "pg_reaper, batches of 10k"
RESTING = "pg_reaper, with its rests"
BY_HAND, NAIVE = "pg_reaper_sweep()", "pk IN (… SKIP LOCKED)"
OURS = (DEFAULT, LARGE, RESTING, BY_HAND)

# One race: rows a second and bytes of WAL a row, by contender.
Race = Mapping[str, tuple[float, float]]

METHOD = """\
{expired:,} of {rows:,} rows have expired, each with a deadline of its own; rows lie in the order of their
deadlines, under a primary key (text) and an index on the deadline. Every measurement has a table made afresh,
vacuumed and followed by a checkpoint, and a new session or worker that has done the same to a small table before,
but has not seen this one; the order of the contenders turns from one race to the next. The bare `DELETE` and the
worker without rests take part in {times} races for each commit mode, the others in {repetitions}, since a machine's
own speed changes from one half second to the next; each ratio is taken within a race. pg_reaper's time runs from the
reload that switches it on (so it includes reading the settings and taking the lease) until `rows_reaped` in
`pg_reaper_status()`, read every 2 ms, has counted all of them. The machine's cores are shared with others, which
slow them down by half now and then: before each measurement but the longest (the worker with its rests, and
`SKIP LOCKED`) it is waited, {patience:g} s at most, until a fixed piece of arithmetic takes no more than {tolerance:g}
of the fastest time seen, on each core. Where it takes longer afterwards, the measurement is made once more, on a table
made afresh, and the second one counts, whatever came after it: so {disturbed} of {taken} were taken though disturbed.
After each measurement it is checked that no expired
row and every live row is left. All settings of pg_reaper are at their defaults, apart from `batch_size` where it is
named, and from `duty_cycle`: it is 100, so that the worker does not rest between batches, but for one contender,
which has the default of {duty_cycle}. The bare `DELETE` is one statement, `DELETE … WHERE deadline < now()`: once with
the plan that the planner takes ({own}), once made to take the plan that pg_reaper takes ({index}); the ratios are
to the latter. The original's loop is `DELETE … RETURNING id` from a client that fetches the ids (Python, psycopg).
Both settings of `synchronous_commit` are published: it is set for the whole server, for peers and reaper alike.
"""


SHORT = [
    Contender(BARE, bare(*BY_INDEX)), Contender(DEFAULT, worker()), Contender(LARGE, worker(LARGE_BATCH)),
]  # fmt: skip
# The commit mode means little to those that run for long.
LONG = [
    Contender(RESTING, worker(duty_cycle=DEFAULT_DUTY_CYCLE), brief=False), Contender(BY_HAND, sweep),
    Contender(NAIVE, naive, brief=False),
]  # fmt: skip


def contenders(mode: str) -> list[Contender]:
    """Who takes part in the first race of a repetition under one commit mode."""
    peers = [Contender(OWN_PLAN, bare()), Contender(ORIGINAL, original)]
    return [*SHORT, *peers, *(LONG if mode == "on" else [])]


def measure(stage: Stage) -> Report:
    """Races them all, under both commit modes."""
    rows, expired = stage.options.rows(2_000_000), stage.options.rows(1_000_000)
    races: dict[str, list[Race]] = {"on": [], "off": []}
    plans: dict[str, str] = {}
    taken, disturbed = stage.pace.taken, stage.pace.disturbed
    try:
        for number_of in range(stage.options.short_repetitions):
            for mode in races:
                stage.set(synchronous_commit=mode)
                stage.say(f"race {number_of + 1}, synchronous_commit = {mode}")
                if not plans:
                    stage.table("backlog", rows, expired)
                    plans = {"own": plan(stage), "index": plan(stage, *BY_INDEX)}
                taking_part = SHORT if number_of % SHORT_TIMES else contenders(mode)
                races[mode].append(race(stage, taking_part, expired, rows, offset=number_of))
    finally:
        stage.set(**{"synchronous_commit": None, "pg_reaper.batch_size": None, "pg_reaper.duty_cycle": None})
    said = METHOD.format(
        expired=expired, rows=rows, duty_cycle=DEFAULT_DUTY_CYCLE, times=stage.options.short_repetitions,
        repetitions=stage.options.repetitions, taken=stage.pace.taken - taken,
        disturbed=stage.pace.disturbed - disturbed, patience=pace.PATIENCE_SECONDS, tolerance=pace.TOLERANCE, **plans,
    )  # fmt: skip
    report = Report(NUMBER, TITLE, said)
    for mode, raced in races.items():
        report.checks += checks(mode, raced)
        report.tables.append(table(mode, raced))
    report.plots["throughput"] = draw(
        {mode: {each.name: speed(raced, each.name) for each in contenders(mode)} for mode, raced in races.items()}
    )
    report.alt["throughput"] = "Rows a second of pg_reaper and its peers, under both commit modes"
    return report


def speed(races: list[Race], name: str) -> Spread:
    """Rows a second, in the races that one took part in."""
    return spread([race[name][0] for race in races if name in race])


def ratio(races: list[Race], ours: str, theirs: str) -> Spread:
    """How often theirs fits into ours, race by race."""
    both = [race for race in races if ours in race and theirs in race]
    return ratios([race[ours][0] for race in both], [race[theirs][0] for race in both])


def checks(mode: str, races: list[Race]) -> list[Check]:
    """The three bars, under one commit mode."""
    under = f"synchronous_commit {mode}"
    return [
        Check(NUMBER, f"{what}; {under}", ratio(races, ours, theirs).median, "×", limit=limit)
        for what, ours, theirs, limit in (
            ("default batches / bare DELETE of the same plan", DEFAULT, BARE, 1.0),
            ("batches of 10k / bare DELETE of the same plan", LARGE, BARE, 1.2),
            ("default batches / the original's loop", DEFAULT, ORIGINAL, 1.5),
        )
    ]


def table(mode: str, races: list[Race]) -> Table:
    """All contenders of one commit mode."""
    rows = []
    for name in (each.name for each in contenders(mode)):
        fast, part = speed(races, name), ratio(races, name, BARE)
        wal = spread([race[name][1] for race in races if name in race])
        rows.append((
            name, thousands(fast.median), f"{thousands(fast.least)}–{thousands(fast.most)}",
            f"{number(part.median)} ({number(part.least)}–{number(part.most)})", number(wal.median),
        ))  # fmt: skip
    header = ("contender", "rows/s, median", "least–most", "of the bare DELETE", "WAL bytes a row")
    return Table(header, rows, f"synchronous_commit = {mode}")


def draw(results: Mapping[str, Mapping[str, Spread]]) -> Figure:
    """Both commit modes, one above the other."""
    drawn, panels = plots.figure(6.2, rows=2, sharex=True, height_ratios=[len(each) for each in results.values()])
    for axes, (mode, measured) in zip(panels, results.items(), strict=True):
        plots.contest(axes, measured, OURS, unit=1000)
        axes.set_title(f"synchronous_commit = {mode}")
        bare_speed = measured[BARE].median / 1000
        plots.bar_line(axes, bare_speed, "bar for default batches: 1.0 of the bare DELETE")
        axes.axvline(1.2 * bare_speed, color=plots.BAR, linestyle=":", label="bar for 10k: 1.2 of it", zorder=3)
    most = max(value.most for measured in results.values() for value in measured.values()) / 1000
    panels[-1].set_xlim(0, most * 1.14)
    panels[-1].set_xlabel("thousand rows a second (median; dots: every measurement)")
    plots.legend(panels[-1])
    return drawn
