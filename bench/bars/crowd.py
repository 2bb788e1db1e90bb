"""Bar 7: whether small tables are served in time while large ones are drained."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from bench import plots, reaper
from bench.figures import number, percentile
from bench.gone import lateness
from bench.reaper import COUNTER
from bench.report import Report, Table
from bench.stage import DEFAULT_DUTY_CYCLE, Stage
from bench.verdict import Check

NUMBER = 7
TITLE = "A hundred policies"

LARGE, SMALL, EACH = 10, 90, 4
FIRST_SECONDS, LAST_SECONDS = 2.0, 14.0
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.02

METHOD = """\
{large} tables with a backlog of {backlog:,} expired rows each, and {small} small ones with {each} rows each, whose
deadlines fall at random into the {span:.0f} seconds after the worker, all its settings at their defaults, is let
loose. The lateness of a small row is seen by a session that lists all the small tables every {poll:.0f} ms, so it is
up to that much too high.
"""


@dataclass
class Play:
    """What was seen: seconds since the worker was let loose."""

    deadlines: dict[str, float]
    late: dict[str, float]
    drained: float = 0.0
    progress: list[tuple[float, int]] = field(default_factory=list)

    def while_draining(self) -> list[float]:
        """The lateness of those whose deadline came before the backlogs were gone."""
        return [self.late[name] for name, deadline in self.deadlines.items() if deadline <= self.drained]


def measure(stage: Stage) -> Report:
    """One play."""
    backlog = stage.options.rows(200_000)
    larges, smalls = [f"large_{n}" for n in range(LARGE)], [f"small_{n}" for n in range(SMALL)]
    for name in larges:
        stage.table(name, backlog, backlog)
    for name in smalls:
        stage.table(name, 0, 0)
    reaper.afresh(stage)
    stage.set(**{"pg_reaper.duty_cycle": DEFAULT_DUTY_CYCLE})
    play = watch(stage, smalls, LARGE * backlog)
    stage.set(**{"pg_reaper.duty_cycle": None})
    stage.say(f"worst lateness {max(play.late.values()):.2f} s; backlogs gone after {play.drained:.1f} s")
    return report(play, backlog)


def watch(stage: Stage, smalls: list[str], backlog: int) -> Play:
    """Lets the worker loose and looks on until the backlogs and the small rows are gone."""
    listed = " UNION ALL ".join(f"SELECT execution_id FROM {name}" for name in smalls)
    now = time.time()
    deadlines: dict[str, float] = {}
    with stage.session() as session:
        with session.transaction():
            for name in (f"{table}/{n}" for table in smalls for n in range(EACH)):
                deadlines[name] = now + random.uniform(FIRST_SECONDS, LAST_SECONDS)
                insert = f"INSERT INTO {name.split('/')[0]} VALUES (%s, 'org', 1, now(), to_timestamp(%s))"
                session.execute(insert, [name, deadlines[name]])
        before = session.execute(COUNTER).fetchone()[1]
        play = Play({}, {})
        with reaper.loose(stage):
            began = time.time()
            if began > now + FIRST_SECONDS:
                raise RuntimeError("it took too long to insert the small rows")

            def look_at_backlog() -> Mapping[str, float] | None:
                gone = session.execute(COUNTER).fetchone()[1] - before
                play.progress.append((time.time() - began, gone))
                if gone >= backlog:
                    play.drained = time.time() - began
                    return None
                if time.time() - began > PATIENCE_SECONDS:
                    raise RuntimeError(f"{gone} of {backlog} rows of the backlogs reaped in {PATIENCE_SECONDS:.0f} s")
                return {}

            play.late = lateness(stage, listed, deadlines, PATIENCE_SECONDS, look_at_backlog, POLL_SECONDS)
        play.deadlines = {name: deadline - began for name, deadline in deadlines.items()}
    return play


def report(play: Play, backlog: int) -> Report:
    """The worst of all and of those during the drain."""
    draining = play.while_draining()
    done = Report(NUMBER, TITLE, METHOD.format(
        large=LARGE, small=SMALL, each=EACH, backlog=backlog, span=LAST_SECONDS, poll=POLL_SECONDS * 1000,
    ))  # fmt: skip
    groups = {"all small rows": list(play.late.values()), "of these, due while the backlogs drained": draining}
    done.checks = [
        Check(NUMBER, f"worst lateness of a small row: {what}", max(late) * 1000, "ms")
        for what, late in groups.items()
        if late
    ]
    shares = (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))
    done.tables.append(Table(
        ("lateness", "rows", *(f"{name}, ms" for name, _ in shares)),
        [
            (what, str(len(late)), *(number(percentile(late, share) * 1000) for _, share in shares))
            for what, late in groups.items()
            if late
        ],
        f"The backlogs were gone after {play.drained:.1f} s.",
    ))  # fmt: skip
    done.plots["hundred-policies"] = draw(play)
    done.alt["hundred-policies"] = "Lateness of small rows while ten backlogs drain"
    return done


def draw(play: Play) -> Figure:
    """Lateness by deadline, above the progress of the backlogs."""
    drawn, (late, progress) = plots.figure(4.6, rows=2, sharex=True, height_ratios=[2, 1])
    points = [(deadline, play.late[name] * 1000) for name, deadline in play.deadlines.items()]
    late.plot(*zip(*points, strict=True), ".", color=plots.OURS, alpha=0.7, label="a row of a small table")
    late.axvspan(0, play.drained, color=plots.PEERS, alpha=0.2, label="while the backlogs drain")
    late.set(ylabel="ms after the deadline", ylim=(0, None))
    late.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    progress.plot(*zip(*((at, rows / 1000) for at, rows in play.progress), strict=True), color=plots.OURS)
    progress.set(xlabel="seconds since the worker was let loose (of a small row: its deadline)",
                 ylabel="thousand rows\nreaped", ylim=(0, None), xlim=(0, None))  # fmt: skip
    return drawn
