"""What a bar's measurement hands in: figures, tables, plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.verdict import Check


@dataclass(frozen=True)
class Table:
    """Rows under a heading; the first column is text, the others are figures, unless all are ``words``."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: bool = False

    def markdown(self) -> str:
        """As GitHub shows tables."""
        lines = [f"**{self.title}**\n"] if self.title else []
        rule = ["---"] + ["---" if self.words else "---:"] * (len(self.header) - 1)
        cells = [self.header, rule, *self.rows]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
        return "\n".join(lines)

    def plain(self) -> str:
        """With the columns lined up, for a terminal."""
        widths = [max(len(row[column]) for row in (self.header, *self.rows)) for column in range(len(self.header))]
        lines = []
        for row in (self.header, *self.rows):
            cells = [row[0].ljust(widths[0])]
            align = str.ljust if self.words else str.rjust
            cells += [align(cell, width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


@dataclass
class Report:
    """One bar's measurement. ``method`` says how it was done, in Markdown; ``plots`` maps file names
    without a suffix to matplotlib figures, and ``alt`` to what they show."""

    bar: int
    title: str
    method: str
    checks: list[Check] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: dict[str, Any] = field(default_factory=dict)
    alt: dict[str, str] = field(default_factory=dict)


def failed(bar: int, title: str, why: str) -> Report:
    """The report of a measurement that came to nothing."""
    return Report(bar, title, f"Nothing was measured: {why}", [Check(bar, title, None)])
