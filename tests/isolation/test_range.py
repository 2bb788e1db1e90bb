"""What concurrent sessions do to the rows of a batch, by each of the roads that a batch takes.

By a range of an index the batch deletes row after row, and waits a moment for a row that is locked.
Where its rows are logged one by one, it has looked before where the range ends; otherwise it ends by
itself, after so many rows. By tids (many rows with one deadline, or no index) it does the same with rows that it has
read before. Rows that are not logged, and that no trigger asks about, go before PostgreSQL's DELETE sees them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import (
    PATIENT, Gate, StatementGate, barriers, status, wait_for, wait_for_sweep, wait_until_reaped,
)  # fmt: skip
from scenery import log
from scenery.barriers import adopted

JOBS = "public.jobs"
# By range, both ways; a tie, which is read ahead; and no index, so that everything is.
ROADS = ["range", "range, unlogged", "tie", "tie, unlogged", "no index", "no index, unlogged"]
# So many more that one deadline has more rows than a batch.
MORE = [f"more {n}" for n in range(5)]


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(make_server: Callable[..., Server], road: str) -> Server:
    """Its worker sweeps once ``pg_reaper.enabled`` is turned on."""
    log_limit = "0" if road.endswith("unlogged") else "100"
    settings = {"pg_reaper.enabled": "off", "pg_reaper.batch_size": "4", "pg_reaper.log_limit": log_limit}
    server = make_server({**PATIENT, **settings})
    adopted(server, JOBS, index=not road.startswith("no index"))
    wait_for(server, "disabled")
    return server


def due(server: Server, road: str, *ids: str) -> None:
    """Rows past their deadline, in this order; on the road of a tie all have the same."""
    step = "interval '0'" if road.startswith("tie") else "interval '1 s'"
    server.query(
        f"INSERT INTO {JOBS} (execution_id, remaining, expires_at)"
        f" SELECT id, 1, timestamptz '2020-01-01' + n * {step}"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS u (id, n)",
        [list(ids)],
    )


def start(server: Server) -> None:
    server.set(**{"pg_reaper.enabled": "on"})


# Where the batch is held up: at a row, or before the first one.
held_up = pytest.mark.parametrize("at", [Gate, StatementGate], ids=["row", "statement"])


@held_up
@pytest.mark.parametrize("moved", ["now() + interval '1 hour'", "'infinity'", "NULL"])
def test_a_row_re_armed_while_its_batch_runs_survives(
    server: Server, road: str, at: type[Gate], moved: str
) -> None:
    gate = at(server, "gate", JOBS)
    due(server, road, "a", "gate", "re-armed", "b", *MORE)
    start(server)
    gate.wait_for_arrival()
    # The batch has seen it as due already.
    assert server.connect().execute(
        f"UPDATE {JOBS} SET expires_at = {moved} WHERE execution_id = 're-armed'"
    ).rowcount == 1
    gate.open()
    wait_until(lambda: status(server).last_sweep, bool, "the sweep to end")
    assert barriers(server, JOBS) == {"re-armed"}
    assert (status(server).rows_reaped, status(server).errors) == (3 + len(MORE), 0)


@held_up
def test_a_row_that_somebody_else_deletes_while_its_batch_runs_is_not_counted(
    server: Server, road: str, at: type[Gate]
) -> None:
    gate = at(server, "gate", JOBS)
    due(server, road, "a", "gate", "deleted", "b", *MORE)
    start(server)
    gate.wait_for_arrival()
    # Not held up itself.
    server.execute(
        "SET session_replication_role = replica", f"DELETE FROM {JOBS} WHERE execution_id = 'deleted'"
    )
    gate.open()
    wait_until(lambda: status(server).last_sweep, bool, "the sweep to end")
    assert barriers(server, JOBS) == set()
    assert (status(server).rows_reaped, status(server).errors) == (3 + len(MORE), 0)


@held_up
def test_a_row_that_changes_while_its_batch_runs_and_stays_due_goes_soon(
    server: Server, road: str, at: type[Gate]
) -> None:
    gate = at(server, "gate", JOBS)
    due(server, road, "a", "gate", "counted down", "later", *(f"more {n}" for n in range(20)))
    start(server)
    gate.wait_for_arrival()
    # One is changed in its place, the other gets a deadline that is past too, but not the range.
    server.execute(
        f"UPDATE {JOBS} SET remaining = remaining - 1 WHERE execution_id = 'counted down'",
        f"UPDATE {JOBS} SET expires_at = '2021-01-01' WHERE execution_id = 'later'",
    )
    gate.open()
    wait_until_reaped(server, "counted down", "later", table=JOBS)
    wait_for_sweep(server)
    assert barriers(server, JOBS) == set()
    assert (status(server).rows_reaped, status(server).errors) == (24, 0)


@pytest.mark.parametrize("road", ["tie, unlogged"])
def test_rows_read_ahead_that_change_while_their_batch_runs_are_judged_by_what_they_are(
    server: Server, road: str
) -> None:
    gate = StatementGate(server, "gate", JOBS, after="first")
    # The first batch sees that there are more with this deadline, and the others are read ahead.
    due(server, road, "first", "a", "b", "c", "gate", "re-armed", "counted down", "deleted", *MORE)
    start(server)
    gate.wait_for_arrival()
    assert barriers(server, JOBS) == {"gate", "re-armed", "counted down", "deleted", *MORE}
    server.execute(
        f"UPDATE {JOBS} SET expires_at = now() + interval '1 hour' WHERE execution_id = 're-armed'",
        f"UPDATE {JOBS} SET remaining = remaining - 1 WHERE execution_id = 'counted down'",
        "SET session_replication_role = replica",
        f"DELETE FROM {JOBS} WHERE execution_id = 'deleted'",
    )
    gate.open()
    wait_until_reaped(server, "gate", "counted down", *MORE, table=JOBS)
    wait_for_sweep(server)
    assert barriers(server, JOBS) == {"re-armed"}
    assert (status(server).rows_reaped, status(server).errors) == (6 + len(MORE), 0)


def test_a_row_locked_in_the_midst_is_passed_over_and_goes_once_it_is_free(server: Server, road: str) -> None:
    rows = [f"b{n:02}" for n in range(30)]
    due(server, road, *rows)
    holder = server.connect(autocommit=False)
    holder.execute(f"SELECT FROM {JOBS} WHERE execution_id IN ('b01', 'b14', 'b15', 'b29') FOR UPDATE")
    start(server)
    # Had it been waited for, it would take lock_timeout (20 s) and fail the sweep.
    wait_until_reaped(server, *set(rows) - {"b01", "b14", "b15", "b29"}, table=JOBS, timeout=15)
    wait_for_sweep(server)
    assert barriers(server, JOBS) == {"b01", "b14", "b15", "b29"}
    assert status(server).errors == 0
    holder.rollback()
    wait_until_reaped(server, *rows, table=JOBS)
    assert log.failures(server.log(), JOBS) == []


def test_a_decrement_in_flight_is_counted_or_its_row_is_swept(server: Server, road: str) -> None:
    due(server, road, "before", "in flight", "after", *MORE)
    session = server.connect(autocommit=False)
    session.execute(f"UPDATE {JOBS} SET remaining = remaining - 1 WHERE execution_id = 'in flight'")
    start(server)
    wait_until_reaped(server, "before", "after", *MORE, table=JOBS, timeout=15)
    wait_for_sweep(server)
    # The callback is this session's to fire, and the row its to delete.
    assert session.execute(f"DELETE FROM {JOBS} WHERE execution_id = 'in flight'").rowcount == 1
    session.commit()
    wait_for_sweep(server)
    assert status(server).rows_reaped == 2 + len(MORE)
    logged = set() if road.endswith("unlogged") else {"before", "after", *MORE}
    assert set(log.orphans(server.log())) == logged


def test_rows_that_a_trigger_keeps_do_not_starve_the_others(server: Server, road: str) -> None:
    server.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER keep BEFORE DELETE ON {JOBS} FOR EACH ROW"
        " WHEN (OLD.execution_id ~ '^kept') EXECUTE FUNCTION keep()",
    )
    kept = [f"kept {n}" for n in range(3000)]
    due(server, road, *kept, "a", "b")
    server.set(**{"pg_reaper.batch_size": 100})
    start(server)
    wait_until_reaped(server, "a", "b", table=JOBS)
    # Nobody forgets them: they go once the trigger lets them.
    wait_for_sweep(server)
    server.execute(f"ALTER TABLE {JOBS} DISABLE TRIGGER keep")
    wait_until_reaped(server, *kept, table=JOBS, timeout=60)


def test_a_lock_that_a_trigger_waits_for_is_waited_for_as_long_as_the_setting_says(
    server: Server, road: str
) -> None:
    # Longer than a range waits for a row, so that the batch is taken by the other road.
    server.execute(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_xact_lock(7); RETURN OLD; END $$",
        f"CREATE TRIGGER linger BEFORE DELETE ON {JOBS} FOR EACH ROW"
        " WHEN (OLD.execution_id = 'slow') EXECUTE FUNCTION linger()",
    )
    holder = server.connect()
    holder.execute("SELECT pg_advisory_lock(7)")
    due(server, road, "quick", "slow", "last", *MORE)
    start(server)
    waits = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND waitstart < clock_timestamp() - interval '100 ms'"
    )
    wait_until(lambda: server.value(waits), bool, "the trigger to wait")
    holder.close()
    wait_until_reaped(server, "quick", "slow", "last", table=JOBS)
    assert log.failures(server.log(), JOBS) == []
