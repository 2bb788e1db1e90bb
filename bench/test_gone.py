"""How lateness is seen, with a table that empties itself at given times."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from bench.gone import lateness


class Emptying:
    """A stage whose only table lists each row until its time."""

    def __init__(self, leaves: Mapping[str, float]) -> None:
        self.leaves = dict(leaves)

    @contextmanager
    def session(self) -> Iterator[Emptying]:
        """Itself."""
        yield self

    def execute(self, query: str) -> list[tuple[str]]:
        """The rows that are still there."""
        return [(name,) for name, until in self.leaves.items() if time.time() < until]


def test_lateness_is_never_too_small() -> None:
    now = time.time()
    late = lateness(Emptying({"a": now + 0.05, "b": now + 0.1}), "", {"a": now, "b": now + 0.08}, 5)
    assert 0.05 <= late["a"] < 1
    assert 0.02 <= late["b"] < 1


def test_a_row_that_stays_counts_as_late_as_it_was_waited_for() -> None:
    now = time.time()
    assert lateness(Emptying({"a": now + 9}), "", {"a": now}, 0.1)["a"] >= 0.1


def test_a_row_that_goes_before_its_deadline_is_an_error() -> None:
    now = time.time()
    with pytest.raises(RuntimeError, match="before its deadline"):
        lateness(Emptying({"a": now}), "", {"a": now + 5}, 1)


def test_rows_that_are_added_meanwhile_are_waited_for() -> None:
    now = time.time()
    stage = Emptying({"a": now + 0.02})
    turns = iter([{}, {"b": now + 0.05}])

    def arrivals() -> dict[str, float] | None:
        new = next(turns, None)
        stage.leaves.update({name: deadline + 0.03 for name, deadline in (new or {}).items()})
        return new

    late = lateness(stage, "", {"a": now}, 5, arrivals)
    assert late["b"] >= 0.03
    assert set(late) == {"a", "b"}
