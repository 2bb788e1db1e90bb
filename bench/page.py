"""The page of results."""

from __future__ import annotations

from collections.abc import Sequence

from bench.options import ALL_BARS, IDLE_SECONDS, REPETITIONS, Options
from bench.report import Report, Table

INTRODUCTION = """\
# Benchmark

Measured by `make bench` in one run, on one machine: the optimised build, a real server of its own,
the peers beside pg_reaper under the same conditions. Medians; in brackets the least and the most of
all measurements. Ratios are between those that were made one after the other. What is worth noting about
the method stands with each bar; [CONTRIBUTING.md](../CONTRIBUTING.md) says how to run it.
"""

SCALED = "**This is a partial or scaled run: its figures are no results.**\n"
SHORTENED = """\
**This run was shortened: {repetitions} repetitions where a whole one has {usual}, and idle for {idle:g} seconds
where that is for {usual_idle:g}.**
"""


def verdicts(reports: Sequence[Report]) -> Table:
    """All bars: what was asked, what was measured, met or missed."""
    rows = [
        (str(check.bar), check.what, check.bar_text, check.measured_text, check.verdict)
        for report in reports
        for check in report.checks
    ]
    return Table(("bar", "what", "bar asks for", "measured", "verdict"), rows, words=True)


def render(options: Options, environment: Table, reports: Sequence[Report]) -> str:
    """The whole page in Markdown."""
    parts = [INTRODUCTION]
    if options.bars != ALL_BARS or options.scale < 1:
        parts.append(SCALED)
    elif not options.whole:
        parts.append(SHORTENED.format(
            repetitions=options.repetitions, usual=REPETITIONS, idle=options.idle_seconds, usual_idle=IDLE_SECONDS,
        ))  # fmt: skip
    parts += ["## Verdict\n", verdicts(reports).markdown() + "\n", "## Environment\n", environment.markdown() + "\n"]
    for report in reports:
        parts.append(f"## {report.bar}. {report.title}\n")
        parts.append(report.method.strip() + "\n")
        parts += [table.markdown() + "\n" for table in report.tables]
        parts += [f"![{report.alt.get(name, name)}](plots/{name}.svg)\n" for name in report.plots]
    return "\n".join(parts)

