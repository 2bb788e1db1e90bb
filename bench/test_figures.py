"""Medians, spreads and percentiles."""

from __future__ import annotations

import pytest

from bench.figures import number, percentile, ratios, spread, thousands


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert spread([4, 1, 3, 2]).median == 2.5
    assert (spread([4, 1, 3]).least, spread([4, 1, 3]).most) == (1, 4)


def test_nothing_measured_is_an_error_and_not_a_figure() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.99)


def test_ratios_are_taken_within_each_repetition() -> None:
    # The second repetition was disturbed as a whole: the ratio does not see it.
    assert ratios([200, 100, 200], [100, 50, 100]).values == (2, 2, 2)
    with pytest.raises(ValueError, match="zip"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_the_p99_of_few_values_is_the_worst_of_them() -> None:
    assert percentile([1, 2, 50], 0.99) == 50


@pytest.mark.parametrize("share", [0, -1, 1.1, 99])
def test_a_share_is_no_percentage(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        percentile([1], share)


def test_figures_have_the_digits_that_say_something() -> None:
    shown = [number(value) for value in (0, 0.00123, 0.5, 0.997, 1, 1.234, 12.34, 123.4, 1234567)]
    assert shown == ["0", "0.00123", "0.5", "0.997", "1", "1.23", "12.3", "123", "1,234,567"]
    assert thousands(1_234_567) == "1,235k"
