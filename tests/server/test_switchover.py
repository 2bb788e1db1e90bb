"""The old primary, back as a standby of the new one, stops acting, and may lead again some day."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness import Server
from harness.reaper import (
    PATIENT, barriers, lease, live, overdue, statuses, wait_for, wait_until_reaped, watch_reaping,
)  # fmt: skip
from harness.standby import catch_up, follow, power_off, promote, standby_of, wait_until_streaming


@pytest.fixture
def primary(make_server: Callable[..., Server]) -> Server:
    # What a rewind needs. With a lease of 60 s nobody waits until one has run out.
    return make_server({**PATIENT, "wal_log_hints": "on", "wal_keep_size": "256MB"}, name="primary")


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    wait_for(primary, "leader")
    with standby_of(primary) as server:
        wait_until_streaming(primary, server)
        yield server


def idles(server: Server) -> bool:
    """Whether no process of pg_reaper runs on a server."""
    return server.worker_pids() == [] and not [row for row in statuses(server) if row.pid]


def test_the_old_primary_as_a_standby_of_the_new_one_does_not_act(primary: Server, standby: Server) -> None:
    primary.stop()
    promote(standby)
    mark = primary.log_mark()
    follow(primary, standby)
    new = wait_for(standby, "leader")
    live(standby, "live")
    overdue(standby, "due")
    wait_until_reaped(standby, "due")
    catch_up(standby, primary)
    assert barriers(primary) == {"live"}
    assert lease(primary)[:2] == (new.leader, new.term)
    assert idles(primary)
    assert "pg_reaper " not in primary.log_since(mark)


def test_terms_rise_and_each_row_is_reaped_once_over_a_switch_and_back(primary: Server, standby: Server) -> None:
    reapings = watch_reaping(primary)
    terms = []
    leading, waiting = primary, standby
    for name in ["first", "second", "third"]:
        terms.append(wait_for(leading, "leader").term)
        overdue(leading, name)
        wait_until_reaped(leading, name)
        assert idles(waiting)
        leading.stop()
        promote(waiting)
        follow(leading, waiting)
        leading, waiting = waiting, leading
    assert terms == [1, 2, 3]
    assert leading is standby
    catch_up(standby, primary)
    told = reapings()
    assert [row.execution_id for row in told] == ["first", "second", "third"]
    assert len({row.leader for row in told}) == 3


def test_a_crashed_primary_that_was_rewound_forgets_that_it_led(primary: Server, standby: Server) -> None:
    old = wait_for(primary, "leader")
    catch_up(primary, standby)
    # The standby's lease may run out at once; the primary's is as long as it was.
    standby.set(**{"pg_reaper.lease_duration": "2s"})
    promote(standby)
    new = wait_for(standby, "leader")
    # Two primaries: what the old one does now is on no timeline that lasts.
    overdue(primary, "on the old timeline")
    wait_until_reaped(primary, "on the old timeline")
    live(primary, "never was")
    power_off(primary)
    mark = primary.log_mark()
    follow(primary, standby, rewind=True)
    overdue(standby, "due")
    wait_until_reaped(standby, "due")
    live(standby, "live")
    catch_up(standby, primary)
    assert barriers(primary) == {"live"}
    assert lease(primary)[:2] == (new.leader, old.term + 1)
    assert idles(primary)
    assert "pg_reaper " not in primary.log_since(mark)
