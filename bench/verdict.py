"""A bar, what was measured against it, and whether it was met."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from bench.figures import number

AT_LEAST, AT_MOST, UNDER = "at least", "at most", "under"
_MEETS = {AT_LEAST: operator.ge, AT_MOST: operator.le, UNDER: operator.lt}


@dataclass(frozen=True)
class Check:
    """One line of the verdict. Without a ``limit`` the figure is only published; without
    ``measured`` the measurement failed, and that is no bar met."""

    bar: int
    what: str
    measured: float | None
    unit: str = ""
    relation: str = AT_LEAST
    limit: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar was met; None where there is none."""
        if self.measured is None:
            return False
        return None if self.limit is None else bool(_MEETS[self.relation](self.measured, self.limit))

    @property
    def bar_text(self) -> str:
        """The bar in words."""
        return "" if self.limit is None else f"{self.relation} {_with_unit(self.limit, self.unit)}"

    @property
    def measured_text(self) -> str:
        """What was measured in words."""
        return "nothing" if self.measured is None else _with_unit(self.measured, self.unit)

    @property
    def verdict(self) -> str:
        """In one word."""
        if self.measured is None:
            return "not measured"
        return {True: "met", False: "missed", None: "published"}[self.met]


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()
