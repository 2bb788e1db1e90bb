"""The checker finds what breaks the promises about policies in a planted history, and nothing in a good one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chaos.checker import judge
from chaos.ledger import Facts
from chaos.row_collect import put
from chaos.row_ledger import Quarantined, Reaping, RowEntry, RowLeft, RowOp
from chaos.rows import HELD_UP_SECONDS, lateness

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class History:
    """Facts about the one row ``s``, told step by step."""

    def __init__(self) -> None:
        self.facts = Facts(ended=at(1000))
        self.rows = self.facts.rows

    def op(
        self, kind: str, when: float, deadline: float, *, state: str = "open", bad: bool = False, kept: bool = True
    ) -> History:
        number = len(self.rows.ops) + 1
        self.rows.ops.append(RowOp(number, "s", kind, 1, True))
        if kept:
            # The filter leaves held rows out.
            entry = RowEntry(number, "jobs", "s", kind, at(deadline), state, state != "held", bad, at(when))
            self.rows.journal.append(entry)
        return self

    def reaped(self, when: float, deadline: float, *, state: str = "open", committed: float | None = None) -> History:
        done = at(when + 0.01 if committed is None else committed)
        self.rows.reapings.append(Reaping("jobs", "s", at(deadline), state, state != "held", at(when), done, 7))
        return self

    def left(self, deadline: float, *, meets: bool = True) -> History:
        self.rows.left.append(RowLeft("jobs", "s", at(deadline), meets))
        return self

    @property
    def broken(self) -> list[str]:
        return sorted({found.promise for found in judge(self.facts).broken})


def made(deadline: float = 2, **other: Any) -> History:
    """A row made at the first second."""
    return History().op("insert", 1, deadline, **other)


def test_ordinary_ends_are_good() -> None:
    assert made().reaped(3, 2).broken == []
    assert made().op("renew", 1.5, 5).reaped(6, 5).broken == []
    assert made().op("complete", 1.5, 2).broken == []
    assert made(9999).left(9999).broken == []
    assert made().op("hold", 1.5, 2, state="held").op("free", 5, 2).reaped(6, 2).broken == []


def test_a_row_that_the_filter_leaves_out_may_stay_past_its_deadline() -> None:
    assert made().op("hold", 1.5, 2, state="held").left(2, meets=False).broken == []


def test_a_row_renewed_after_its_deadline_may_live_on() -> None:
    assert made().op("renew", 3, 9999).left(9999).broken == []


# Live rows lost.


def test_a_row_reaped_before_its_deadline_is_found() -> None:
    assert made(9).reaped(3, 9).broken == ["lost"]


def test_a_row_reaped_in_spite_of_a_renewal_is_found() -> None:
    # As if the deadline had not been checked again on the version that is deleted.
    assert made().op("renew", 2.5, 9).reaped(3, 9).broken == ["lost"]


def test_a_row_reaped_in_an_old_version_is_found() -> None:
    # Even if it would have been due in the new one: the renewal was committed, and nobody has heeded it.
    assert made().op("renew", 2.5, 2.8).reaped(3, 2).broken == ["lost"]


def test_a_row_reaped_though_its_deadline_as_committed_lay_ahead_is_found() -> None:
    # The trigger's word is not taken for it.
    assert "lost" in made().op("renew", 2.5, 9).reaped(3, 2).broken


def test_a_row_reaped_while_the_filter_left_it_out_is_found() -> None:
    assert made().op("hold", 1.5, 2, state="held").reaped(3, 2, state="held").broken == ["lost"]
    assert "lost" in made().op("hold", 1.5, 2, state="held").reaped(3, 2).broken


def test_a_row_that_vanished_is_found() -> None:
    assert made().broken == ["lost"]


def test_a_renewal_of_a_row_that_was_reaped_is_found() -> None:
    assert made().reaped(3, 2).op("renew", 4, 9).broken == ["lost"]


def test_a_renewal_committed_after_the_reaping_began_counts_if_it_came_first() -> None:
    assert made().op("renew", 2.9, 9).reaped(2.8, 2, committed=3).broken == ["lost"]


def test_a_renewal_lost_in_a_failover_is_not_held_against_the_reaper() -> None:
    history = made().op("renew", 1.5, 9, kept=False).reaped(3, 2)
    assert history.broken == ["commits"]
    history.facts.cut = {1}
    assert history.broken == []


# Due rows left, and reaped twice.


def test_a_due_row_left_is_found() -> None:
    assert made().left(2).broken == ["due"]


@pytest.mark.parametrize("deadline", [999.9, 1000.1])
def test_due_is_what_is_past_its_deadline_when_it_is_read(deadline: float) -> None:
    assert made(deadline).left(deadline).broken == (["due"] if deadline < 1000 else [])


def test_a_row_reaped_twice_is_found() -> None:
    assert made().reaped(3, 2).reaped(4, 2).broken == ["twice"]


def test_a_row_both_completed_and_reaped_is_found() -> None:
    assert "twice" in made().op("complete", 2.5, 2).reaped(3, 2).broken


def test_a_row_that_nobody_has_made_is_found() -> None:
    assert History().reaped(3, 2).broken == ["commits"]


# Bad rows, and the good ones behind them.


def test_a_row_in_quarantine_at_the_end_is_found() -> None:
    history = made(bad=True).reaped(20, 2)
    assert history.broken == []
    history.rows.quarantine.append(Quarantined("jobs", '{"id": "s"}', "not yet", 9))
    assert history.broken == ["quarantine"]


def test_a_good_row_reaped_too_late_is_found() -> None:
    late = 2 + HELD_UP_SECONDS
    assert made().reaped(late, 2).broken == []
    assert made().reaped(late + 0.1, 2).broken == ["heldup"]


def test_a_bad_row_may_be_late_if_it_was_in_quarantine() -> None:
    history = made(bad=True).reaped(500, 2)
    assert history.broken == ["put"]
    history.rows.put.add("s")
    assert history.broken == []


def test_a_row_is_not_late_before_it_could_be_known_to_be_due() -> None:
    history = made().op("hold", 1.5, 2, state="held").op("free", 100, 2).reaped(101, 2)
    assert history.broken == []
    assert lateness(history.rows.journal, history.rows.reapings[0]) == pytest.approx(1)


def test_what_a_log_says_of_quarantine_is_read() -> None:
    line = (
        '2030-01-01 00:00:00.000 UTC [7] WARNING:  row {"id": "a-1", "shard": 3} of public.tokens_low cannot be'
        " reaped, and goes into quarantine: a-1 is to stay\n"
    )
    assert put(line + line.replace("quarantine", "retirement")) == {"a-1"}
