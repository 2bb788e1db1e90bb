"""Passes that are held, and what is said of it."""

from __future__ import annotations

import itertools
from typing import Any

from harness import Server, wait_until
from harness.reaper import barriers, lease, overdue, status, wait_for_cycles, wait_until_reaped
from scenery import log
from scenery.barriers import arm

HOUR = 3600.0

# Said by whichever worker sees it first.
HOLDS = "pg_reaper holds all passes: clock leapt forward by "
GRACE = "pg_reaper: passes begin in "

_numbers = itertools.count(1)


def wait_until_held(server: Server, why: str, database: str = "postgres", timeout: float = 30) -> Any:
    """Waits until status says that passes are held; the status then."""
    return wait_until(
        lambda: status(server, database),
        lambda row: row.state == "leader" and row.held is not None and row.held.startswith(why),
        f"the passes of {database} to be held: {why}",
        timeout,
    )


def wait_until_seen(server: Server) -> None:
    """Waits until a worker has seen the leap: what it swept before, it has swept."""
    wait_until(lambda: said(server, HOLDS), bool, "the warning of the worker")


def goes_on_holding(server: Server) -> str:
    """Turns some cycles, in which the lease is renewed and nothing is reaped; the id of a barrier
    that is overdue, also by the right clock: no test sets it that far."""
    overdue_by_far = f"overdue while held {next(_numbers)}"
    arm(server, overdue_by_far, due="-20 h")
    # A sweep that was over but for the telling may be told of still.
    wait_for_cycles(server, 1)
    before, stamp, there = status(server), lease(server).acquired_at, barriers(server)
    wait_for_cycles(server, 5)
    wait_until(lambda: lease(server).acquired_at, lambda now: now > stamp, "the lease to be renewed")
    after = status(server)
    assert (after.state, after.pid, after.term) == ("leader", before.pid, before.term)
    assert after.last_sweep == before.last_sweep, "a sweep is told of while passes are held"
    assert barriers(server) == there
    return overdue_by_far


def goes_on_reaping(server: Server) -> None:
    """Reaps what is overdue."""
    overdue(server, "overdue")
    wait_until_reaped(server, "overdue")
    row = status(server)
    assert (row.state, row.held) == ("leader", None)


def said(server: Server, text: str) -> list[log.Entry]:
    """The lines of the log that begin so."""
    return [entry for entry in log.entries(server.log()) if entry.message.startswith(text)]


def notices(server: Server, statement: str, **where: Any) -> tuple[Any, list[str]]:
    """The answer to a statement, and the NOTICEs that came with it."""
    session = server.connect(**where)
    heard: list[str] = []
    session.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    row = session.execute(statement).fetchone()
    session.close()
    assert row is not None
    return row[0], heard


class FileGate:
    """Holds up whoever deletes a barrier whose id begins with ``gate``, until opened.

    It waits for a file, not for a lock: the timers of a lock wait go by the wall clock, and a
    leap would cancel the batch.
    """

    def __init__(self, server: Server, table: str = "pg_barrier_state") -> None:
        self.server = server
        self.file = server.directory / "open"
        server.execute(
            "CREATE FUNCTION file_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" WHILE (pg_stat_file('{self.file}', true)).size IS NULL LOOP PERFORM pg_sleep(0.01); END LOOP;"
            " RETURN OLD; END $$",
            f"CREATE TRIGGER file_gate BEFORE DELETE ON {table} FOR EACH ROW"
            " WHEN (OLD.execution_id ~ '^gate') EXECUTE FUNCTION file_gate()",
        )

    def wait_for_arrival(self) -> None:
        """Waits until somebody is held up here."""
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: self.server.value(asleep), lambda sleepers: sleepers == 1, "somebody at the gate")

    def open(self) -> None:
        """Lets them go on."""
        self.file.touch()

    def close(self) -> None:
        """Holds up who comes after."""
        self.file.unlink()
