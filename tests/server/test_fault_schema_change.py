"""Whoever changes a watched table, or drops the extension, waits neither for an idle worker nor, for long, for a busy one."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import (
    AT_ONCE, PATIENT, adoptable, barriers, live, overdue, status, wait_for, wait_until_reaped, watch_reaping,
)  # fmt: skip
from scenery import log
from scenery.busy import UNHURRIED, Brake

CHANGES = [
    "ALTER TABLE {t} ADD COLUMN extra int",
    "ALTER TABLE {t} ADD COLUMN volatile text DEFAULT random()::text",
    "VACUUM FULL {t}",
    "TRUNCATE {t}",
    "LOCK TABLE {t}",
    "CREATE INDEX ON {t} (remaining)",
    "CREATE INDEX CONCURRENTLY ON {t} (remaining)",
]
each_change = pytest.mark.parametrize("change", CHANGES)
each_table = pytest.mark.parametrize("table", ["pg_barrier_state", "adopted"])


def run(server: Server, statement: str) -> None:
    """Runs a statement as a user who is not patient."""
    with server.connect() as user:
        user.execute(f"SET statement_timeout = '{AT_ONCE}s'")
        if statement.startswith("LOCK"):
            with user.transaction():
                user.execute(statement)
        else:
            user.execute(statement)


@each_change
@each_table
def test_nobody_waits_for_an_idle_worker(make_server: Callable[..., Server], table: str, change: str) -> None:
    # Nobody is cancelled for anybody: there is nothing to wait for in the first place.
    server = make_server({**PATIENT, "pg_reaper.interval": "15s", "deadlock_timeout": "1h"})
    if table == "adopted":
        adoptable(server, table)
    before = wait_for(server, "leader")
    run(server, change.format(t=table))
    after = status(server)
    assert (after.pid, after.errors) == (before.pid, 0)


def test_drop_extension_does_not_wait_for_an_idle_worker(make_server: Callable[..., Server]) -> None:
    server = make_server({**PATIENT, "pg_reaper.interval": "15s", "deadlock_timeout": "1h"})
    wait_for(server, "leader")
    run(server, "DROP EXTENSION pg_reaper CASCADE")


@each_change
@each_table
def test_a_worker_deep_in_a_batch_gives_way_and_goes_on(
    make_server: Callable[..., Server], table: str, change: str
) -> None:
    server = make_server({**UNHURRIED, "pg_reaper.enabled": "off"})
    if table == "adopted":
        adoptable(server, table)
    reapings = watch_reaping(server, table)
    brake = Brake(server, table)
    live(server, "alive", table=table)
    ids = [f"row {n}" for n in range(4)]
    overdue(server, *ids, table=table)
    server.set(**{"pg_reaper.enabled": "on"})
    pid = brake.wait_for_arrival()
    before = status(server)
    run(server, change.format(t=table))
    given_up = f"rows of public.{table} was cancelled to make way for somebody else"
    # It is said once the batch is rolled back, and the other was waiting for just that.
    wait_until(server.log, lambda said: given_up in said, "the batch to be said to be given up")
    if change.startswith("TRUNCATE"):
        live(server, "alive", table=table)
        overdue(server, *ids, table=table)
    assert barriers(server, table) == {"alive", *ids}
    brake.release()
    wait_until_reaped(server, *ids, table=table)
    assert barriers(server, table) == {"alive"}
    after = status(server)
    assert (after.pid, after.term, after.state) == (pid, before.term, "leader")
    # Each of them once, by the log as well.
    if "DISABLE TRIGGER" not in change:
        assert sorted(row.execution_id for row in reapings()) == ids
    wait_until(lambda: sorted(log.orphans(server.log())), lambda told: told == ids, "each to be told of")
    assert len(log.warnings(server.log(), "reaped orphaned barrier")) == 4


def test_the_last_row_of_a_table_gives_way_too(make_server: Callable[..., Server]) -> None:
    # A batch of one row cannot be made smaller.
    server = make_server(UNHURRIED)
    brake = Brake(server)
    overdue(server, "only")
    pid = brake.wait_for_arrival()
    for n in range(3):
        brake.wait_for_arrival()
        run(server, f"ALTER TABLE pg_barrier_state ADD COLUMN extra{n} int")
    assert barriers(server) == {"only"}
    brake.release()
    wait_until_reaped(server, "only")
    assert (status(server).pid, status(server).term) == (pid, 1)


@each_table
def test_drop_extension_ends_a_worker_deep_in_a_batch(make_server: Callable[..., Server], table: str) -> None:
    server = make_server(UNHURRIED)
    if table == "adopted":
        adoptable(server, table)
    brake = Brake(server, table)
    overdue(server, "one", "two", table=table)
    pid = brake.wait_for_arrival()
    run(server, "DROP EXTENSION pg_reaper")
    if table == "adopted":
        # Nobody owes anything to a table that nobody watches any more.
        wait_until(server.worker_pids, lambda pids: pid not in pids, "the worker to leave", AT_ONCE)
        assert barriers(server, table) == {"one", "two"}
    wait_until(server.worker_pids, lambda pids: pid not in pids, "the worker to leave", AT_ONCE)
    server.execute("DROP TABLE brake", "CREATE EXTENSION pg_reaper")
    overdue(server, "again")
    wait_until_reaped(server, "again")
    assert wait_for(server, "leader").pid != pid


def test_whoever_waits_for_a_row_of_a_long_batch_is_let_through(make_server: Callable[..., Server]) -> None:
    server = make_server(UNHURRIED)
    brake = Brake(server)
    overdue(server, "one", "re-armed", "three")
    brake.wait_for_arrival()
    # The batch has locked all three by now, before it deletes the first.
    run(server, "UPDATE pg_barrier_state SET expires_at = now() + interval '1 h' WHERE execution_id = 're-armed'")
    brake.release()
    wait_until_reaped(server, "one", "three")
    assert barriers(server) == {"re-armed"}


def test_a_user_who_holds_the_table_keeps_it_for_as_long_as_he_likes(make_server: Callable[..., Server]) -> None:
    # Giving way must not become a race: while somebody is at the table the worker waits for it.
    server = make_server({**UNHURRIED, "pg_reaper.lock_timeout": "300ms"})
    brake = Brake(server)
    overdue(server, "one", "two")
    brake.wait_for_arrival()
    user = server.connect(autocommit=False)
    user.execute(f"SET statement_timeout = '{AT_ONCE}s'")
    user.execute("ALTER TABLE pg_barrier_state ADD COLUMN extra int")
    wait_until(server.log, lambda text: "sweep of public.pg_barrier_state failed" in text, "the worker to give up")
    user.execute("ALTER TABLE pg_barrier_state DROP COLUMN extra")
    assert user.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    user.commit()
    brake.release()
    wait_until_reaped(server, "one", "two")
