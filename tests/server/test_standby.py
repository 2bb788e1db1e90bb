"""A standby server waits: it has no worker, and nothing on it sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from harness import Server
from harness.reaper import (
    PATIENT, adoptable, barriers, lease, live, overdue, statuses, wait_for, wait_until_reaped,
)  # fmt: skip
from harness.standby import catch_up, in_recovery, promote, standby_of, wait_until_streaming
from scenery.log import entries


@pytest.fixture
def primary(make_server: Callable[..., Server]) -> Server:
    return make_server(PATIENT, name="primary")


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    wait_for(primary, "leader")
    with standby_of(primary) as server:
        wait_until_streaming(primary, server)
        yield server


def sayings(server: Server) -> list[str]:
    """What pg_reaper has said in a server's log."""
    said = [entry.message for entry in entries(server.log())]
    # With the space: settings and paths have the name in them too.
    return [message for message in said if "pg_reaper " in message or "reaped " in message]


def test_a_standby_has_no_worker_and_shows_what_the_primary_reaps(primary: Server, standby: Server) -> None:
    live(primary, "live")
    overdue(primary, "due")
    wait_until_reaped(primary, "due")
    catch_up(primary, standby)
    assert barriers(standby) == {"live"}
    assert lease(standby)[:2] == lease(primary)[:2]
    assert [row for row in statuses(standby) if row.pid] == []
    assert standby.worker_pids() == []
    # Nor was there one for a moment.
    assert sayings(standby) == []


def test_a_sweep_on_a_standby_is_a_clear_error(primary: Server, standby: Server) -> None:
    primary.set(**{"pg_reaper.enabled": "off"})
    wait_for(primary, "disabled")
    overdue(primary, "due")
    catch_up(primary, standby)
    for arguments in ["", "'pg_barrier_state'", "max_rows => 0"]:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as error:
            standby.query(f"SELECT pg_reaper_sweep({arguments})")
        assert error.value.diag.message_primary == "pg_reaper cannot sweep while the server is in recovery"
        assert "primary" in (error.value.diag.message_hint or "")
    assert barriers(standby) == {"due"}


def test_what_is_watched_cannot_be_changed_on_a_standby(primary: Server, standby: Server) -> None:
    adoptable(primary, "watched")
    primary.execute("CREATE TABLE app (LIKE watched INCLUDING ALL)")
    catch_up(primary, standby)
    for call in ["pg_reaper_adopt('app')", "pg_reaper_disown('watched')"]:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            standby.query(f"SELECT {call}")


def test_a_standby_that_restarts_or_reloads_still_waits(primary: Server, standby: Server) -> None:
    standby.restart()
    standby.set(**{"pg_reaper.interval": "20ms"})
    overdue(primary, "due")
    wait_until_reaped(primary, "due")
    catch_up(primary, standby)
    assert in_recovery(standby)
    assert standby.worker_pids() == []
    assert sayings(standby) == []


def test_a_standby_waits_and_leads_once_it_is_promoted(primary: Server, standby: Server) -> None:
    # A clean end of the primary gives the lease back, and the standby hears of it: with a lease
    # of 60 s, whoever waited for it to run out would come too late.
    before = wait_for(primary, "leader")
    primary.stop()
    assert barriers(standby) == set()
    assert standby.worker_pids() == []
    promote(standby)
    after = wait_for(standby, "leader")
    assert (after.term, lease(standby)[:2]) == (before.term + 1, (after.leader, after.term))
    live(standby, "live")
    overdue(standby, "due")
    wait_until_reaped(standby, "due")
    assert barriers(standby) == {"live"}


def test_every_database_has_its_worker_after_the_promotion(primary: Server, standby: Server) -> None:
    # Made while the standby waited.
    databases = ["one", "two"]
    primary.set(**{"pg_reaper.databases": "*"})
    standby.set(**{"pg_reaper.databases": "*"})
    for database in databases:
        primary.execute(f"CREATE DATABASE {database} TEMPLATE template0")
        primary.execute("CREATE EXTENSION pg_reaper", dbname=database)
    before = [wait_for(primary, "leader", database=database).leader for database in databases]
    primary.stop()
    promote(standby)
    after = [wait_for(standby, "leader", database=database) for database in databases]
    assert [row.term for row in after] == [2, 2]
    assert not {row.leader for row in after} & set(before)
