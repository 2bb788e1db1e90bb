"""Promotion while the lease row names the old primary: the new one leads, and each row is reaped once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness import Server, wait_until
from harness.reaper import (
    PATIENT, Gate, barriers, lease, live, overdue, status, until_counted, wait_for, wait_until_reaped,
    watch_reaping,
)  # fmt: skip
from harness.standby import catch_up, power_off, promote, standby_of, streaming, wait_until_streaming
from scenery.log import orphans


@pytest.fixture
def primary(make_server: Callable[..., Server]) -> Server:
    """Its worker is held up by a gate for up to 10 s, and its lease runs out only after its end."""
    return make_server({**PATIENT, "pg_reaper.batch_size": "1"}, name="primary")


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    """Its own lease is short: what the primary holds it can take soon, once it may."""
    wait_for(primary, "leader")
    with standby_of(primary, {"pg_reaper.lease_duration": "2s"}) as server:
        wait_until_streaming(primary, server)
        yield server


def test_a_standby_promoted_beside_a_living_primary_takes_the_copied_lease(primary: Server, standby: Server) -> None:
    old = wait_for(primary, "leader")
    catch_up(primary, standby)
    assert lease(standby).leader == old.leader
    promote(standby)
    new = wait_for(standby, "leader")
    assert new.leader != old.leader
    assert lease(standby)[:2] == (new.leader, old.term + 1)
    # From here each timeline is on its own: the old one has lost nothing.
    overdue(standby, "due")
    wait_until_reaped(standby, "due")
    overdue(primary, "due")
    wait_until_reaped(primary, "due")
    assert lease(primary)[:2] == (old.leader, old.term)


def test_after_a_crash_of_the_primary_its_standby_leads_and_no_live_row_is_lost(
    primary: Server, standby: Server
) -> None:
    old = wait_for(primary, "leader")
    live(primary, "live")
    catch_up(primary, standby)
    power_off(primary)
    assert lease(standby).leader == old.leader
    promote(standby)
    new = wait_for(standby, "leader")
    assert lease(standby)[:2] == (new.leader, old.term + 1)
    overdue(standby, "due")
    wait_until_reaped(standby, "due")
    assert barriers(standby) == {"live"}


@pytest.mark.parametrize("leadership", ["lease", "advisory"])
def test_a_lease_that_ran_out_before_the_promotion_is_not_waited_for(
    primary: Server, standby: Server, leadership: str
) -> None:
    settings = {"pg_reaper.lease_duration": "60s", "pg_reaper.leadership": leadership}
    standby.set(**settings)
    primary.set(**{"pg_reaper.enabled": "off"})
    # Under the lock, the row does not count.
    stamp = "clock_timestamp()" if leadership == "advisory" else "clock_timestamp() - interval '61 s'"
    wait_until(lambda: lease(primary).leader, lambda leader: leader == "", "the primary to release its lease")
    primary.execute(f"UPDATE pg_reaper_lease SET leader = 'the old primary', term = 41, acquired_at = {stamp}")
    catch_up(primary, standby)
    power_off(primary)
    promote(standby)
    new = wait_for(standby, "leader")
    expected = (new.leader, 42) if leadership == "lease" else ("the old primary", 41)
    assert lease(standby)[:2] == expected


def test_what_a_broken_off_sweep_left_over_is_reaped_once_by_the_new_primary(
    primary: Server, standby: Server
) -> None:
    reapings = watch_reaping(primary)
    gate = Gate(primary, "gate")
    live(primary, "live")
    before, after = [f"before {n}" for n in range(5)], [f"after {n}" for n in range(5)]
    overdue(primary, *before, "gate", *after)
    gate.wait_for_arrival()
    assert {row.execution_id for row in reapings()} == set(before)
    catch_up(primary, standby)
    power_off(primary)
    promote(standby)
    new = wait_for(standby, "leader")
    wait_until_reaped(standby, "gate", *after)
    told = standby.query("SELECT execution_id, leader FROM reapings ORDER BY 1")
    assert [name for name, _ in told] == sorted([*before, "gate", *after])
    assert {name for name, leader in told if leader == new.leader} == {"gate", *after}
    assert barriers(standby) == {"live"}
    # An operator with both logs reads of each row once.
    assert sorted(orphans(primary.log())) == sorted(before)
    wait_until(
        lambda: sorted(orphans(standby.log())), lambda names: names == sorted(["gate", *after]), "the rest to be told"
    )


def test_what_the_standby_never_heard_of_is_done_again_there_and_once(primary: Server, standby: Server) -> None:
    reapings = watch_reaping(primary)
    overdue(primary, "heard")
    wait_until_reaped(primary, "heard")
    gate = Gate(primary, "gate")
    overdue(primary, "gate", "unheard")
    gate.wait_for_arrival()
    catch_up(primary, standby)
    standby.set(primary_conninfo="")
    wait_until(lambda: streaming(primary), lambda names: not names, "the standby to lose its primary")
    gate.open()
    wait_until_reaped(primary, "gate", "unheard")
    assert len(reapings()) == 3
    power_off(primary)
    assert barriers(standby) == {"gate", "unheard"}
    promote(standby)
    wait_until_reaped(standby, "gate", "unheard")
    told = standby.query("SELECT execution_id FROM reapings ORDER BY n")
    assert told == [("heard",), ("gate",), ("unheard",)]
    until_counted(standby, 2)
