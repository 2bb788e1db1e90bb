"""The checker finds each kind of violation in a history that was planted, and none in a good one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chaos.checker import judge
from chaos.ledger import CLIENT, OUTSIDE, WORKER, Deletion, Entry, Facts, Left, Line, Miss, Move, Op

START = datetime(2030, 1, 1, tzinfo=UTC)
ALICE, BOB = "host:5432/alpha/101@t1", "host:5432/alpha/102@t2"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def move(n: int, leader: str, term: int | None, when: float, **other: Any) -> Move:
    values = {"old_leader": "", "old_stamp": at(when - 10), "who": WORKER, "committed": at(when + 0.01), **other}
    return Move("alpha", n, leader, term, at=at(when), **values)


def deletion(barrier: str, when: float, deadline: float, **other: Any) -> Deletion:
    values = {
        "n": int(when * 100), "remaining": 2, "committed": at(when + 0.01), "pid": 101, "who": WORKER,
        "leader": ALICE, "term": 1, **other,
    }  # fmt: skip
    return Deletion("alpha", barrier=barrier, deadline=at(deadline), at=at(when), **values)


class History:
    """Facts about one barrier ``b`` and more, told step by step."""

    def __init__(self) -> None:
        self.facts = Facts(ended=at(100), shortest_lease=1.5)
        self.facts.moves = [move(1, ALICE, 1, 0)]
        self._number = 0

    def op(
        self, kind: str, when: float, deadline: float | None = None, *, acked: bool = True, kept: bool = True,
        epoch: int = 1, barrier: str = "b",
    ) -> History:  # fmt: skip
        self._number += 1
        until = None if deadline is None else at(deadline)
        remaining = 2 if kind == "arm" else None
        said = until if acked else None
        self.facts.ops.append(Op(self._number, "alpha", barrier, kind, epoch, acked, said, remaining))
        if kept:
            self.facts.journal.append(Entry(self._number, "alpha", barrier, kind, until, remaining, at(when)))
        return self

    def gone(self, when: float, epoch: int = 1) -> History:
        self._number += 1
        self.facts.misses.append(Miss("alpha", "b", epoch, at(when), "decrement", self._number))
        return self

    def line(self, epoch: int = 1, lateness: float = 5.0) -> History:
        self.facts.lines.append(Line(epoch, "b", lateness, f"line of epoch {epoch}"))
        return self

    def deleted(self, when: float, deadline: float, **other: Any) -> History:
        self.facts.deletions.append(deletion("b", when, deadline, **other))
        return self

    def left(self, deadline: float) -> History:
        self.facts.left.append(Left("alpha", "b", at(deadline), 2))
        return self

    @property
    def broken(self) -> set[str]:
        return {found.promise for found in judge(self.facts).broken}


def reaped() -> History:
    """A barrier's ordinary end."""
    return History().op("arm", 1, deadline=2).deleted(3, deadline=2).line()


def test_ordinary_ends_are_good() -> None:
    assert reaped().broken == set()
    assert reaped().gone(4).broken == set()
    completed = History().op("arm", 1, deadline=9).op("decrement", 2).op("complete", 3)
    assert completed.deleted(3, deadline=9, who=CLIENT, leader="", pid=5).gone(4).broken == set()
    assert History().op("arm", 1, deadline=999).left(999).broken == set()
    assert History().op("arm", 1, deadline=2).op("rearm", 1.5, deadline=5).deleted(6, deadline=5).line().broken == set()
    aborted = History().op("arm", 1, deadline=2).op("decrement", 1.1).op("abort", 1.2)
    assert aborted.deleted(3, deadline=2, remaining=-1).line().broken == set()


def test_a_process_killed_between_commit_and_line_breaks_nothing() -> None:
    assert History().op("arm", 1, deadline=2).deleted(3, deadline=2).broken == set()


# Live barriers lost.


def test_a_barrier_reaped_before_its_deadline_is_found() -> None:
    assert "live" in History().op("arm", 1, deadline=9).deleted(3, deadline=9).line().broken


def test_a_barrier_reaped_in_spite_of_a_rearm_is_found() -> None:
    # The version that was deleted is an old one, as if the deadline had not been checked again.
    history = History().op("arm", 1, deadline=2).op("rearm", 2.5, deadline=9)
    assert "live" in history.deleted(3, deadline=2).line().broken


def test_a_client_that_finds_its_live_barrier_gone_is_a_witness() -> None:
    history = History().op("arm", 1, deadline=9).gone(4).op("rearm", 5, deadline=9, acked=False, kept=False)
    assert "live" in history.left(9).broken


def test_a_barrier_that_vanished_is_found() -> None:
    assert History().op("arm", 1, deadline=2).broken == {"live"}


def test_a_line_that_says_too_early_is_found() -> None:
    assert History().op("arm", 1, deadline=2).deleted(3, deadline=2).line(lateness=-1.0).broken == {"live"}


def test_a_rearm_lost_in_a_failover_is_not_held_against_the_reaper() -> None:
    history = History().op("arm", 1, deadline=2).op("rearm", 1.5, deadline=9, kept=False)
    history.facts.cut = {1}
    assert history.deleted(3, deadline=2).line(epoch=2).gone(4, epoch=2).broken == set()


def test_an_arm_that_got_no_answer_is_not_held_against_the_reaper() -> None:
    assert History().op("arm", 1, deadline=9, acked=False, kept=False).gone(4).broken == set()
    # Nor a completion: a client may have deleted it.
    history = History().op("arm", 1, deadline=9).op("complete", 2, acked=False, kept=False).gone(3)
    assert history.left(999).broken == set()


def test_an_arm_that_got_no_answer_but_was_committed_counts() -> None:
    assert "live" in History().op("arm", 1, deadline=9, acked=False).gone(4).left(9).broken


# Orphans left.


def test_an_orphan_left_is_found() -> None:
    assert History().op("arm", 1, deadline=2).left(2).broken == {"orphans"}


# Reaped twice.


def test_a_barrier_deleted_twice_is_found() -> None:
    assert reaped().deleted(5, deadline=2).broken == {"twice"}


def test_a_barrier_said_to_be_reaped_twice_is_found() -> None:
    assert reaped().line().broken == {"twice"}
    assert reaped().line(epoch=2).broken == {"twice"}, "nothing was lost between the epochs"


def test_a_reaping_lost_in_a_failover_may_be_done_again() -> None:
    history = reaped().line(epoch=2)
    history.facts.cut = {1}
    assert history.broken == set()
    assert history.line(epoch=2).broken == {"twice"}


def test_a_reaping_that_was_announced_but_did_not_last_is_found() -> None:
    assert History().op("arm", 1, deadline=2).line().left(999).broken == {"twice"}


def test_a_barrier_both_completed_and_reaped_is_found() -> None:
    completed = History().op("arm", 1, deadline=2).op("complete", 1.5)
    completed.deleted(1.5, deadline=2, who=CLIENT, leader="", pid=5)
    assert completed.line().broken == {"twice"}
    both = History().op("arm", 1, deadline=2).op("complete", 1.5).deleted(3, deadline=2).line()
    assert "twice" in both.broken


# A decrement counts, or the barrier is reaped.


def test_a_decrement_that_is_not_in_the_version_reaped_is_found() -> None:
    assert History().op("arm", 1, deadline=2).op("decrement", 1.5).deleted(3, deadline=2).broken == {"counted"}


def test_a_decrement_of_a_barrier_that_was_reaped_is_found() -> None:
    assert History().op("arm", 1, deadline=2).deleted(3, deadline=2).op("decrement", 4).broken == {"counted"}


# Two leaders in one lease.


def two_leaders(**other: Any) -> History:
    """Alice leads until 10, Bob afterwards; each reaps in time, and there is one more deletion."""
    history = reaped()
    history.facts.moves.append(move(2, BOB, 2, 10, old_leader=ALICE, old_stamp=at(5)))
    for name, when, values in (
        ("late", 11.0, {"pid": 102, "leader": BOB, "term": 2}),
        ("x", other.pop("when", 9.0), other),
    ):
        history.op("arm", 1, deadline=2, barrier=name)
        history.facts.deletions.append(deletion(name, when, 2, **values))
    return history


def test_one_leader_after_the_other_is_good() -> None:
    assert two_leaders().broken == set()


def test_a_deposed_leader_that_reaps_is_found() -> None:
    # Without the fence: another leads, as the deleting transaction itself can see.
    assert two_leaders(when=12.0, leader=BOB, term=2).broken == {"leaders"}


def test_a_batch_begun_in_time_but_committed_in_the_next_term_is_found() -> None:
    # Checked at its start, but not locked.
    assert two_leaders(committed=at(12)).broken == {"leaders"}


def test_a_leader_whose_term_was_ignored_is_found() -> None:
    # The same worker took the lease again, and a batch of its former term commits.
    history = two_leaders(when=21.0)
    history.facts.moves.append(move(3, ALICE, 3, 20, old_leader=BOB, old_stamp=at(15)))
    assert history.broken == {"leaders"}


def test_a_term_that_a_worker_has_not_acquired_itself_is_not_its_own() -> None:
    # Somebody raised the term by hand, and the worker goes on as if it were its own.
    history = two_leaders(when=21.0, pid=102, leader=BOB, term=3)
    history.facts.moves.append(move(3, BOB, 3, 20, who="nemesis", old_leader=BOB, old_stamp=at(19)))
    assert history.broken == {"leaders"}


def test_a_worker_that_reaps_while_the_outsider_leads_is_found() -> None:
    history = reaped()
    history.facts.moves.append(
        move(2, "outside:1", 1, 2.5, who=OUTSIDE, old_leader=ALICE, old_stamp=at(0))
    )
    history.facts.deletions = [replace(history.facts.deletions[0], leader="outside:1")]
    assert history.broken == {"leaders"}


def test_what_the_outsider_deletes_is_not_held_against_pg_reaper() -> None:
    history = History().op("arm", 1, deadline=2).deleted(3, deadline=2, who=OUTSIDE, pid=7)
    assert history.broken == set()


def test_a_lease_taken_while_its_stamp_was_fresh_is_found() -> None:
    history = reaped()
    history.facts.moves.append(move(2, BOB, 2, 10, old_leader=ALICE, old_stamp=at(9)))
    assert history.broken == {"leaders"}


def test_a_reaping_after_the_release_is_found() -> None:
    history = reaped()
    history.facts.moves.append(move(2, "", 1, 2, old_leader=ALICE))
    assert history.broken == {"leaders"}


def test_a_reaping_under_a_lease_that_nobody_acquired_is_found() -> None:
    history = reaped()
    history.facts.moves = []
    assert history.broken == {"leaders"}


# Terms.


@pytest.mark.parametrize("term", [0, 1])
def test_a_term_that_does_not_rise_is_found(term: int) -> None:
    history = reaped()
    history.facts.moves.append(move(2, BOB, term, 20, old_leader=ALICE))
    assert "terms" in history.broken


def test_a_release_keeps_its_term() -> None:
    history = reaped()
    history.facts.moves += [move(2, "", 1, 20, old_leader=ALICE), move(3, BOB, 2, 21)]
    assert history.broken == set()


def test_without_terms_each_acquisition_needs_an_id_of_its_own() -> None:
    history = History()
    history.facts.moves = [move(1, ALICE, None, 0), move(2, "", None, 5), move(3, BOB, None, 6)]
    assert history.broken == set()
    history.facts.moves.append(move(4, ALICE, None, 20, old_leader=BOB))
    assert history.broken == {"terms"}


# The servers themselves.


def test_an_acknowledged_commit_that_is_gone_is_found_unless_its_epoch_was_cut() -> None:
    history = History().op("arm", 1, deadline=2, kept=False)
    assert history.broken == {"commits"}
    history.facts.cut = {1}
    assert history.broken == set()


def test_a_server_that_hangs_is_found() -> None:
    history = reaped()
    history.facts.stuck.append("did not stop")
    assert history.broken == {"stuck"}
