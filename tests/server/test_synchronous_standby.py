"""A synchronous standby that is gone: clients wait for it, and nothing of ours does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, PATIENT, Gate, barriers, lease, live, status, wait_for, wait_for_sweep, wait_until_reaped,
    watch_lease,
)  # fmt: skip
from harness.standby import catch_up, standby_of, streaming, wait_until_streaming

# How a test writes while clients would wait for ever.
ALONE = {"options": "-c synchronous_commit=local"}


@pytest.fixture(params=["on", "remote_apply"])
def primary(make_server: Callable[..., Server], request: pytest.FixtureRequest) -> Server:
    return make_server({**PATIENT, "synchronous_commit": request.param}, name="primary")


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    """A standby that the primary's commits wait for."""
    wait_for(primary, "leader")
    with standby_of(primary, name="partner") as server:
        wait_until_streaming(primary, server)
        primary.set(synchronous_standby_names="partner")
        wait_until(lambda: streaming(primary), lambda names: names == {"partner": "sync"}, "it to be waited for")
        yield server


def overdue(session: psycopg.Connection, *ids: str) -> None:
    """Arms barriers whose deadline has passed. What a worker that has swept finds at once."""
    session.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " SELECT id, 1, now() - interval '1 h', now() FROM unnest(%s::text[]) AS id",
        [list(ids)],
    )


def a_client_that_waits(server: Server) -> psycopg.Connection:
    """A commit that is waiting for the standby: the proof that it is missed."""
    client = server.connect()
    client.pgconn.send_query(b"CREATE TABLE clients ()")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = %s"
    wait_until(lambda: server.value(waiting, [client.info.backend_pid]), bool, "a client to wait for the standby")
    return client


def nothing_of_ours_waits(server: Server) -> bool:
    """Whether no process of pg_reaper waits for a standby."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type LIKE 'pg_reaper%'"
    return bool(server.value(query) == 0)


def test_sweeps_go_on_without_the_standby_and_reach_it_when_it_is_back(primary: Server, standby: Server) -> None:
    before = wait_for(primary, "leader")
    standby.stop()
    session = primary.connect(**ALONE)
    a_client_that_waits(primary)
    overdue(session, "one")
    wait_until_reaped(primary, "one")
    overdue(session, "two")
    wait_until_reaped(primary, "two")
    wait_for_sweep(primary)
    assert nothing_of_ours_waits(primary)
    after = status(primary)
    assert (after.pid, after.term, after.errors) == (before.pid, before.term, 0)
    standby.start()
    catch_up(primary, standby)
    assert barriers(standby) == set()
    assert lease(standby).leader == after.leader


def test_a_batch_under_way_when_the_standby_goes_is_committed(primary: Server, standby: Server) -> None:
    gate = Gate(primary, "gate")
    session = primary.connect(**ALONE)
    live(primary, "live")
    overdue(session, "first", "gate", "last")
    gate.wait_for_arrival()
    standby.stop()
    a_client_that_waits(primary)
    gate.open()
    # Well before the statement's timeout would end its wait.
    wait_until_reaped(primary, "first", "gate", "last", timeout=AT_ONCE)
    assert barriers(primary) == {"live"}


def test_a_worker_leaves_and_its_successor_leads_without_the_standby(primary: Server, standby: Server) -> None:
    before = wait_for(primary, "leader")
    moves = watch_lease(primary)
    standby.stop()
    session = primary.connect(**ALONE)
    session.execute("SELECT pg_terminate_backend(%s)", [before.pid])
    wait_until(primary.worker_pids, lambda pids: before.pid not in pids, "the worker to leave", AT_ONCE)
    after = wait_until(
        lambda: status(primary), lambda row: row.state == "leader" and row.pid != before.pid, "another worker"
    )
    assert [move[:2] for move in moves()] == [("", before.term), (after.leader, before.term + 1)]
    overdue(session, "due")
    wait_until_reaped(primary, "due")


@pytest.mark.parametrize("mode", ["fast", "smart"])
def test_the_server_stops_promptly_without_the_standby(primary: Server, standby: Server, mode: str) -> None:
    gate = Gate(primary, "gate")
    session = primary.connect(**ALONE)
    overdue(session, "first", "gate")
    gate.wait_for_arrival()
    standby.stop()
    if mode == "smart":
        # It waits for clients to leave by themselves.
        primary.close_connections()
    else:
        a_client_that_waits(primary)
    primary.stop(mode, timeout=AT_ONCE)
    assert "pg_reaper released term 1: the worker is leaving" in primary.log()
    primary.start()
    after = wait_for(primary, "leader")
    assert after.term == 2
    wait_until_reaped(primary, "first", "gate")


def test_a_sweep_by_hand_waits_only_if_its_session_does(primary: Server, standby: Server) -> None:
    primary.set(**{"pg_reaper.enabled": "off"})
    wait_for(primary, "disabled")
    standby.stop()
    session = primary.connect(**ALONE)
    overdue(session, "due")
    assert session.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)
    assert barriers(primary) == set()
