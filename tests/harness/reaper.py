"""What tests tell pg_reaper, and ask of it: barriers, the lease, the status, who reaped what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from psycopg.rows import namedtuple_row

from harness.server import Server
from harness.waiting import wait_until

# A batch may be held up for 20 s (a third of the lease) before the product cuts it short, so
# that an interleaving arranged by a test is over long before.
PATIENT = {
    "pg_reaper.interval": "50ms",
    "pg_reaper.lease_duration": "60s",
    "pg_reaper.lock_timeout": "20s",
}

# Gone "within a second" is the promise. A busy machine may take longer for reasons of its own;
# what a test must tell apart is this from waiting for a timeout, and those are 20 s.
AT_ONCE = 8.0


def overdue(server: Server, *ids: str, table: str = "pg_barrier_state") -> None:
    """Arms barriers whose deadline has passed, the first longest ago, in one transaction.

    A worker that has swept before finds deadlines that old when it next walks the index from its
    left edge: soon, but not always in the next cycle. The first sweep of a worker finds them all.
    """
    server.query(
        f"INSERT INTO {table} (execution_id, remaining, created_at, expires_at)"
        " SELECT id, 1, now() - interval '1 day', now() - interval '1 hour' + n * interval '1 s'"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS u (id, n)",
        [list(ids)],
    )


def live(server: Server, *ids: str, table: str = "pg_barrier_state") -> None:
    """Arms barriers whose deadline is an hour ahead."""
    server.query(
        f"INSERT INTO {table} (execution_id, remaining, expires_at)"
        " SELECT id, 1, now() + interval '1 hour' FROM unnest(%s::text[]) AS u (id)",
        [list(ids)],
    )


def barriers(server: Server, table: str = "pg_barrier_state") -> set[str]:
    """The ids of the barriers that are there."""
    return {name for (name,) in server.query(f"SELECT execution_id FROM {table}")}


def wait_until_reaped(server: Server, *ids: str, table: str = "pg_barrier_state", timeout: float = 30) -> None:
    """Waits until none of these barriers is left."""
    wait_until(lambda: barriers(server, table) & set(ids), lambda left: not left, "the barriers to be reaped", timeout)


def adoptable(server: Server, table: str, extra: str = "") -> None:
    """An application's own table that follows the protocol, adopted."""
    server.execute(
        f"CREATE TABLE {table} (execution_id text PRIMARY KEY, remaining integer NOT NULL DEFAULT 1,"
        " created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL"
        f"{extra})",
        f"CREATE INDEX ON {table} (expires_at)",
        f"SELECT pg_reaper_adopt('{table}')",
    )


def statuses(server: Server, **where: Any) -> list[Any]:
    """The rows of ``pg_reaper_status()``, their columns by name."""
    with server.connect(row_factory=namedtuple_row, **where) as connection:
        return connection.execute("SELECT * FROM pg_reaper_status() ORDER BY started_at").fetchall()


def status_if_any(server: Server, database: str = "postgres", **where: Any) -> Any:
    """The row of the only worker of a database, or None where nothing is told of one."""
    rows = [row for row in statuses(server, **where) if row.database == database]
    assert len(rows) <= 1, f"one worker expected: {rows}"
    return rows[0] if rows else None


def status(server: Server, database: str = "postgres", **where: Any) -> Any:
    """The row of the only worker of a database. Of one that is about to start it is told soon."""
    return wait_until(lambda: status_if_any(server, database, **where), description=f"a worker of {database}")


def wait_for(
    server: Server, state: str, timeout: float = 30, database: str = "postgres", **where: Any
) -> Any:
    """Waits until the worker is in a state (``leader``, ``standby``, …); its status then."""
    return wait_until(
        lambda: status(server, database, **where),
        lambda row: row.state == state,
        f"the worker to be {state}",
        timeout,
    )


def wait_for_cycles(server: Server, cycles: int = 3) -> Any:
    """Waits until the worker has turned some whole cycles from now on; its status then."""
    return _advances(server, lambda row: row.last_cycle, cycles + 1)


def wait_for_sweep(server: Server) -> Any:
    """Waits for a successful sweep that began after this call; the status then."""
    # The first to end from now on may have begun before.
    return _advances(server, lambda row: row.last_sweep, 2)


def until_counted(server: Server, rows: int) -> Any:
    """Waits until the worker has counted so many rows, which it does once they are gone for good; the
    status then."""
    return wait_until(lambda: status(server), lambda row: row.rows_reaped == rows, f"{rows} rows to be counted")


def until_taken_up(server: Server) -> None:
    """Waits until what was set before this call is in force in the worker."""
    # The cycle under way may be the last by the old settings; each tells twice that it goes on.
    wait_for_cycles(server, 2)


def _advances(server: Server, what: Callable[[Any], Any], times: int) -> Any:
    last = what(status(server))
    for turn in range(times):
        now = wait_until(
            lambda: status(server),
            lambda row, last=last: what(row) is not None and what(row) != last,
            f"the worker to go on ({turn} of {times})",
        )
        last = what(now)
    return now


class Lease(NamedTuple):
    """The lease row."""

    leader: str
    term: int
    acquired_at: Any


def lease(server: Server) -> Lease:
    """The lease as it stands."""
    return Lease(*server.query("SELECT leader, term, acquired_at FROM pg_reaper_lease")[0])


def watch_lease(server: Server) -> Callable[[], list[Lease]]:
    """Notes every change of hands; what is returned lists them, the oldest first."""
    server.execute(
        "CREATE TABLE moves (n serial, leader text, term bigint, at timestamptz DEFAULT clock_timestamp())",
        "CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.moves (leader, term) VALUES (NEW.leader, NEW.term); RETURN NULL; END $$",
        "CREATE TRIGGER note_move AFTER UPDATE ON pg_reaper_lease FOR EACH ROW"
        " WHEN (OLD.leader <> NEW.leader OR OLD.term <> NEW.term) EXECUTE FUNCTION note_move()",
    )
    return lambda: [Lease(*row) for row in server.query("SELECT leader, term, at FROM moves ORDER BY n")]


class Reaping(NamedTuple):
    """One row that was deleted: by which process and transaction, and who held the lease."""

    execution_id: str
    pid: int
    transaction: str
    leader: str
    at: Any


def watch_reaping(server: Server, table: str = "pg_barrier_state") -> Callable[[], list[Reaping]]:
    """Notes every deletion with who held the lease then; what is returned lists them."""
    server.execute(
        "CREATE TABLE reapings (n serial, execution_id text, pid integer, transaction text, leader text,"
        " at timestamptz DEFAULT clock_timestamp())",
        "CREATE FUNCTION note_reaping() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.reapings (execution_id, pid, transaction, leader)"
        " SELECT OLD.execution_id, pg_backend_pid(), pg_current_xact_id()::text, leader"
        " FROM public.pg_reaper_lease; RETURN NULL; END $$",
        f"CREATE TRIGGER note_reaping AFTER DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note_reaping()",
    )
    return lambda: [
        Reaping(*row)
        for row in server.query("SELECT execution_id, pid, transaction, leader, at FROM reapings ORDER BY n")
    ]


class Gate:
    """Holds up whoever deletes one barrier, in a trigger before the row goes, until opened.

    The ids of barriers that may have one begin with ``gate``. Who is held up waits for no lock, so
    no timeout for locks ends it.
    """

    # The two keys of an advisory lock: held while the gate is shut, and by who stands before it.
    SHUT, ARRIVED = 1, 2

    def __init__(self, server: Server, execution_id: str, table: str = "pg_barrier_state") -> None:
        assert execution_id.startswith("gate")
        self.server = server
        server.execute(
            "CREATE OR REPLACE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" PERFORM pg_advisory_xact_lock_shared({self.ARRIVED}, hashtext(OLD.execution_id));"
            f" WHILE NOT pg_try_advisory_xact_lock_shared({self.SHUT}, hashtext(OLD.execution_id))"
            "  LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN OLD; END $$",
            f"CREATE OR REPLACE TRIGGER gate BEFORE DELETE ON {table} FOR EACH ROW"
            " WHEN (OLD.execution_id ~ '^gate') EXECUTE FUNCTION gate()",
        )
        self.session = server.connect()
        self.session.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [self.SHUT, execution_id])
        self.id = execution_id

    def wait_for_arrival(self) -> int:
        """Waits until somebody is held up here; their process id."""
        query = (
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s"
            " AND objid = hashtext(%s)::bigint & 4294967295"
        )
        pids = wait_until(lambda: self.server.query(query, [self.ARRIVED, self.id]), bool, f"somebody at {self.id}")
        return pids[0][0]

    def open(self) -> None:
        """Lets them go on."""
        self.session.close()


class StatementGate(Gate):
    """Holds up the statement that deletes, when it has seen its rows and touched none: for tables in which
    nobody asks about each row. It lets through those that come while there is a row ``after``."""

    def __init__(
        self, server: Server, execution_id: str, table: str = "pg_barrier_state", after: str = ""
    ) -> None:
        super().__init__(server, execution_id, table)
        server.execute(
            "CREATE OR REPLACE FUNCTION statement_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF EXISTS (SELECT FROM {table} WHERE execution_id = '{after}') THEN RETURN NULL; END IF;"
            f" PERFORM pg_advisory_xact_lock_shared({self.ARRIVED}, hashtext('{execution_id}'));"
            f" WHILE NOT pg_try_advisory_xact_lock_shared({self.SHUT}, hashtext('{execution_id}'))"
            "  LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$",
            f"DROP TRIGGER gate ON {table}",
            f"CREATE TRIGGER gate BEFORE DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION statement_gate()",
        )


class LockedGate(Gate):
    """A gate before which one waits for a lock."""

    def __init__(self, server: Server, execution_id: str, table: str = "pg_barrier_state") -> None:
        super().__init__(server, execution_id, table)
        server.execute(
            "CREATE OR REPLACE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" PERFORM pg_advisory_xact_lock_shared({self.ARRIVED}, hashtext(OLD.execution_id));"
            f" PERFORM pg_advisory_xact_lock_shared({self.SHUT}, hashtext(OLD.execution_id));"
            " RETURN OLD; END $$"
        )


def waits_for_lock(server: Server, pid: int) -> bool:
    """Whether a process is waiting for a lock."""
    return bool(server.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [pid]))
