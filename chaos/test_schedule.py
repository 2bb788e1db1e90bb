"""The schedule is a pure function of the seed and the minutes."""

from __future__ import annotations

import random

from chaos.schedule import BAG, HEAVY_APART, LASTS, LEASE_SECONDS, PROMOTIONS_APART, draw


def test_the_same_seed_gives_the_same_faults_whatever_was_drawn_before() -> None:
    first = draw(7, 5)
    random.seed(99)
    random.random()
    draw(8, 5)
    assert draw(7, 5) == first


def test_another_seed_gives_other_faults() -> None:
    assert len({tuple(map(str, draw(seed, 2))) for seed in range(20)}) == 20


def test_the_schedule_is_the_one_that_was_always_drawn_from_this_seed() -> None:
    # Changes when the drawing changes: a seed in an old report then means another run.
    assert [(fault.at, fault.kind) for fault in draw(7, 2)[:3]] == [
        (3.0, "usurp term"), (4.08, "freeze launcher"), (4.783, "terminate worker"),
    ]  # fmt: skip


def test_faults_are_in_order_and_within_their_minutes() -> None:
    for seed in range(20):
        times = [fault.at for fault in draw(seed, 3)]
        assert times == sorted(times)
        assert 0 < times[0] and times[-1] < 180


def test_every_kind_comes_in_time() -> None:
    for seed in range(20):
        assert {fault.kind for fault in draw(seed, 3)} == set(BAG)


def test_the_server_is_given_time_between_what_takes_it_down() -> None:
    for seed in range(20):
        heavy = [fault.at for fault in draw(seed, 5) if fault.heavy]
        assert all(b - a >= HEAVY_APART - 0.01 for a, b in zip(heavy, heavy[1:], strict=False))
        promotions = [fault.at for fault in draw(seed, 5) if fault.kind.startswith("promote")]
        assert all(b - a >= PROMOTIONS_APART - 0.01 for a, b in zip(promotions, promotions[1:], strict=False))


def test_a_frozen_worker_is_frozen_for_longer_than_the_lease() -> None:
    assert LASTS["freeze worker"][0] > LEASE_SECONDS
    for fault in draw(3, 5):
        if fault.kind in LASTS:
            least, most = LASTS[fault.kind]
            assert least <= fault.seconds <= most
