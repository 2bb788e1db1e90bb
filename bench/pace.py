"""Whether the machine is at its own pace. A virtual one shares its cores with neighbours, and is slower
by half for as long as they are busy: for a tenth of a second, or for minutes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

STEPS = 50_000
TIMES = 3
# How much longer than at its fastest the arithmetic may take.
TOLERANCE = 1.25
PATIENCE_SECONDS = 10.0
# How often a measurement is made at most.
ATTEMPTS = 2


class Pace:
    """Compares a fixed piece of arithmetic with the fastest that it has ever been here."""

    def __init__(self, arithmetic: Callable[[], Iterator[float]] | None = None) -> None:
        self._arithmetic = arithmetic or on_each_core
        self._fastest = min(min(self._arithmetic()) for _ in range(10))
        # Measurements that were taken, and those of them that were disturbed to the last attempt.
        self.taken = self.disturbed = 0

    def steady(self) -> bool:
        """Whether every core is as fast as it can be."""
        seconds = list(self._arithmetic())
        self._fastest = min(self._fastest, *seconds)
        return max(seconds) <= TOLERANCE * self._fastest

    def undisturbed(self, prepare: Callable[[], object], measure: Callable[[], T]) -> T:
        """What a measurement gives that begins and ends at the machine's own pace; prepared and made anew
        where it did not end so, but not for ever: the last one counts."""
        self.taken += 1
        for _ in range(ATTEMPTS):
            prepare()
            ends = time.monotonic() + PATIENCE_SECONDS
            while not (steady := self.steady()) and time.monotonic() < ends:
                pass
            measured = measure()
            if steady and self.steady():
                return measured
        self.disturbed += 1
        return measured


def on_each_core() -> Iterator[float]:
    """Seconds that the arithmetic takes on one core after the other: the middle one of a few times."""
    cores = os.sched_getaffinity(0)
    try:
        for core in sorted(cores):
            os.sched_setaffinity(0, {core})
            yield statistics.median(arithmetic() for _ in range(TIMES))
    finally:
        os.sched_setaffinity(0, cores)


def arithmetic() -> float:
    """Seconds that it takes here and now."""
    began = time.perf_counter()
    total = 0
    for step in range(STEPS):
        total += step * step
    return time.perf_counter() - began
