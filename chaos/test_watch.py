"""The longest time without a leader, from what was seen when."""

from __future__ import annotations

from chaos.watch import BLIND, DOWN, LED, NOBODY, OFF, Gaps


def gaps(*seen: tuple[float, str]) -> tuple[float, float]:
    result = Gaps()
    for at, state in seen:
        result.see(at, state)
    return result.overall, result.undisturbed


def test_no_gap_while_somebody_leads() -> None:
    assert gaps((0, LED), (1, LED), (2, LED)) == (1, 0)


def test_the_time_before_the_first_leader_counts() -> None:
    assert gaps((0, NOBODY), (3, LED)) == (3, 3)


def test_a_gap_that_has_not_ended_counts() -> None:
    assert gaps((0, LED), (1, NOBODY), (5, NOBODY)) == (5, 4)


def test_an_outage_counts_only_as_part_of_the_longer_figure() -> None:
    assert gaps((0, LED), (1, NOBODY), (2, DOWN), (8, NOBODY), (9, LED)) == (9, 1)


def test_a_locked_lease_is_not_held_against_the_worker() -> None:
    assert gaps((0, LED), (1, BLIND), (7, LED)) == (7, 0)


def test_while_it_is_switched_off_nobody_need_lead() -> None:
    assert gaps((0, LED), (1, OFF), (8, OFF), (9, NOBODY), (10, LED)) == (2, 1)
