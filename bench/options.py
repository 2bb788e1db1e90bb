"""How much is measured, and where the results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "bench"
TRIED = ROOT / "target" / "bench"

ALL_BARS = (1, 2, 3, 4, 5, 6, 7, 8)
REPETITIONS = 5
IDLE_SECONDS = 600.0
# What is over within a second is measured so many times in each repetition.
SHORT_TIMES = 3


@dataclass(frozen=True)
class Options:
    """What was asked for. ``scale`` multiplies rows and times."""

    bars: tuple[int, ...] = ALL_BARS
    scale: float = 1.0
    repetitions: int = REPETITIONS
    idle_seconds: float = IDLE_SECONDS

    @property
    def whole(self) -> bool:
        """Whether this run measures what the bars ask for, so that its results may be committed."""
        enough = self.repetitions >= REPETITIONS and self.idle_seconds >= IDLE_SECONDS
        return self.bars == ALL_BARS and self.scale == 1 and enough

    @property
    def short_repetitions(self) -> int:
        """How often that is measured which is over within a second: a single time says little where
        the speed of the machine itself changes from one to the next."""
        return self.repetitions * SHORT_TIMES

    @property
    def folder(self) -> Path:
        """Where the results go: only a whole run writes over those that are committed."""
        return COMMITTED if self.whole else TRIED

    def rows(self, full: int) -> int:
        """So many rows, scaled."""
        return max(round(full * self.scale), 1000)

    def seconds(self, full: float, least: float = 5) -> float:
        """So long a time, scaled, but not shorter than ``least``."""
        return max(full * self.scale, min(full, least))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of the command line; ends the program when they make no sense."""
    parser = argparse.ArgumentParser(prog="bench", description="pg_reaper and its peers, measured side by side.")
    parser.add_argument("--bars", default="", help="which, as in 1,2,8; all if not given")
    parser.add_argument("--scale", type=float, default=1.0, help="share of rows and times (0.001 to 1)")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--idle-seconds", type=float, default=None, help="span of bar 6; 600, scaled, if not given")
    given = parser.parse_args(arguments)
    try:
        bars = tuple(sorted({int(bar) for bar in given.bars.split(",") if bar.strip()})) or ALL_BARS
    except ValueError:
        parser.error(f"--bars takes numbers with commas between, not {given.bars!r}")
    unknown = [bar for bar in bars if bar not in ALL_BARS]
    if unknown:
        parser.error(f"there is no bar {unknown[0]}: choose from {ALL_BARS[0]} to {ALL_BARS[-1]}")
    if not 0.001 <= given.scale <= 1:
        parser.error("--scale must be between 0.001 and 1")
    if given.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    idle = IDLE_SECONDS * given.scale if given.idle_seconds is None else given.idle_seconds
    if idle <= 0:
        parser.error("--idle-seconds must be above 0")
    return Options(bars, given.scale, given.repetitions, idle)
