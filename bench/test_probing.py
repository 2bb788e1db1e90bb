"""From totals to what one sweep added."""

from __future__ import annotations

import pytest

from bench.probing import by_the_sweep


def test_a_report_of_several_sweeps_is_divided_among_them() -> None:
    assert by_the_sweep([(3, 100), (7, 140), (8, 150)]).values == (10, 10)


def test_a_report_without_a_sweep_in_between_belongs_to_the_next() -> None:
    assert by_the_sweep([(3, 100), (3, 104), (4, 110)]).values == (6,)


def test_a_worker_that_does_not_sweep_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="1 times only"):
        by_the_sweep([(3, 100)])
