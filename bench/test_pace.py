"""Measurements are made again where the machine was not at its own pace."""

from __future__ import annotations

from collections.abc import Iterator

from bench.pace import ATTEMPTS, Pace

FAST, SLOW = [1.0, 1.1], [1.0, 1.6]


def paced(*afterwards: list[float]) -> tuple[Pace, list[str]]:
    """On a machine that was fast at first, then as told, and fast again."""
    told = iter(afterwards)
    begun = iter(range(10))

    def arithmetic() -> Iterator[float]:
        yield from FAST if next(begun, None) is not None else next(told, FAST)

    return Pace(arithmetic), []


def measured(pace: Pace, made: list[str]) -> int:
    """What comes of a measurement that gives how often it has been made."""
    return pace.undisturbed(lambda: made.append("prepared"), lambda: made.append("measured") or made.count("measured"))


def test_an_undisturbed_measurement_counts() -> None:
    pace, made = paced(FAST, FAST)
    assert measured(pace, made) == 1
    assert (pace.taken, pace.disturbed, made) == (1, 0, ["prepared", "measured"])


def test_it_begins_when_the_machine_is_fast() -> None:
    pace, made = paced(SLOW, SLOW, FAST, FAST)
    assert measured(pace, made) == 1
    assert pace.disturbed == 0


def test_a_disturbed_one_is_made_anew() -> None:
    pace, made = paced(FAST, SLOW, FAST, FAST)
    assert measured(pace, made) == 2
    assert (pace.taken, pace.disturbed) == (1, 0)
    assert made == ["prepared", "measured"] * 2


def test_but_not_for_ever() -> None:
    pace, made = paced(*[FAST, SLOW] * ATTEMPTS)
    assert measured(pace, made) == ATTEMPTS
    assert (pace.taken, pace.disturbed) == (1, 1)


def test_what_is_fastest_is_learnt() -> None:
    pace, _ = paced([0.5, 0.5], FAST)
    assert pace.steady()
    assert not pace.steady(), "1.1 was fast until 0.5 was seen"
