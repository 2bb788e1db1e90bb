"""Medians, spreads and percentiles of what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("nothing was measured")

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest one."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest one."""
        return max(self.values)


def spread(values: Sequence[float]) -> Spread:
    """The spread of a list of measurements."""
    return Spread(tuple(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How often theirs fits into ours, repetition by repetition: what disturbs a whole repetition
    cancels out."""
    return spread([our / their for our, their in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed (nearest rank)."""
    if not values:
        raise ValueError("nothing was measured")
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0 and at most 1, not {share}")
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def thousands(value: float) -> str:
    """1234567 as 1,235k."""
    return f"{value / 1000:,.0f}k"


def number(value: float) -> str:
    """With as many digits as say something, and commas."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
