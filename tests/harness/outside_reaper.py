"""The reaper of the original, which runs outside the server, and the lease that it shares.

It is a client like any other: it acquires the row when it is free or was not renewed for a window,
renews it by its id, and releases it to ''. Its table has no term.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from harness.reaper import PATIENT
from harness.server import Server
from harness.waiting import wait_until

TABLE = "public.pg_orchestrator_lock"
OWNER = "app"
LEASE_COLUMNS = "id integer, leader text DEFAULT '', acquired_at timestamptz DEFAULT now()"

SHARED = {"pg_reaper.lease_table": TABLE}

# The lease does not run out during a test: whoever takes over was handed it.
LONG = {**PATIENT, **SHARED}
LONG_WINDOW = timedelta(minutes=1)


class SharedLease(NamedTuple):
    """The shared row."""

    leader: str
    acquired_at: Any


def make_lease_table(server: Server, table: str = TABLE) -> None:
    """The table of the original with its one row, owned by the application."""
    server.execute(
        f"DO $$ BEGIN CREATE ROLE {OWNER} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        f"GRANT CREATE ON SCHEMA public TO {OWNER}",
    )
    server.execute(
        f"CREATE TABLE {table} ({LEASE_COLUMNS}, PRIMARY KEY (id))",
        f"INSERT INTO {table} (id) VALUES (1)",
        user=OWNER,
    )


def shared_lease(server: Server, table: str = TABLE) -> SharedLease:
    """The shared row as it stands."""
    return SharedLease(*server.query(f"SELECT leader, acquired_at FROM {table}")[0])


def is_reapers(leader: str, pid: int | None = None) -> bool:
    """Whether a leader's id is one of pg_reaper's, or of one worker's; it reads ``host:port/database/pid@start#n``."""
    parts = leader.split("/")
    return len(parts) == 3 and "#" in leader and (pid is None or parts[2].startswith(f"{pid}@"))


def wait_for_reaper(server: Server, other_than: str = "", table: str = TABLE, timeout: float = 30) -> str:
    """Waits until a worker of pg_reaper holds the shared row, not under ``other_than``; its id."""
    return wait_until(
        lambda: shared_lease(server, table).leader,
        lambda leader: is_reapers(leader) and leader != other_than,
        "pg_reaper to hold the shared lease",
        timeout,
    )


class OutsideReaper:
    """One process of the original, with a session of its own."""

    def __init__(self, server: Server, window: timedelta = LONG_WINDOW, me: str = "outside", table: str = TABLE) -> None:
        self.me, self.window, self.table = me, window, table
        self.session = server.connect(user=OWNER)

    def acquire(self) -> bool:
        """Takes the row if it is free or stale; whether it did."""
        taken = self.session.execute(
            f"UPDATE {self.table} SET leader = %s, acquired_at = now()"
            " WHERE id = 1 AND (leader = '' OR acquired_at < now() - %s)",
            [self.me, self.window],
        )
        return taken.rowcount == 1

    def renew(self) -> bool:
        """Stamps the row if it is its own still; whether it was."""
        stamped = self.session.execute(
            f"UPDATE {self.table} SET acquired_at = now() WHERE id = 1 AND leader = %s", [self.me]
        )
        return stamped.rowcount == 1

    def release(self) -> bool:
        """Frees the row if it is its own; whether it was."""
        freed = self.session.execute(f"UPDATE {self.table} SET leader = '' WHERE id = 1 AND leader = %s", [self.me])
        return freed.rowcount == 1

    def wait_to_acquire(self, timeout: float = 30) -> None:
        """Tries until it holds the row."""
        wait_until(self.acquire, bool, f"{self.me} to acquire {self.table}", timeout)


class Move(NamedTuple):
    """One change of the shared row, by whom, and in which transaction."""

    leader: str
    acquired_at: Any
    transaction: str


def watch_moves(server: Server, table: str = TABLE) -> Callable[[], list[Move]]:
    """Notes every change of the shared row, stamps too; what is returned lists them, the oldest first."""
    server.execute(
        "CREATE TABLE moves (n serial, leader text, acquired_at timestamptz, transaction text)",
        "CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " INSERT INTO public.moves (leader, acquired_at, transaction)"
        " VALUES (NEW.leader, NEW.acquired_at, pg_current_xact_id()::text); RETURN NULL; END $$",
        f"CREATE TRIGGER note_move AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION note_move()",
    )
    return lambda: [
        Move(*row) for row in server.query("SELECT leader, acquired_at, transaction FROM moves ORDER BY n")
    ]


class Reaping(NamedTuple):
    """One row that was deleted: by which process and transaction, and what the shared row said then."""

    execution_id: str
    pid: int
    transaction: str
    leader: str
    acquired_at: Any
    at: Any


def watch_reaping(server: Server, table: str = TABLE) -> Callable[[], list[Reaping]]:
    """Notes every deletion with who held the shared lease then; what is returned lists them."""
    server.execute(
        "CREATE TABLE reapings (n serial, execution_id text, pid integer, transaction text, leader text,"
        " acquired_at timestamptz, at timestamptz DEFAULT clock_timestamp())",
        "CREATE FUNCTION note_reaping() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.reapings (execution_id, pid, transaction, leader, acquired_at)"
        " SELECT OLD.execution_id, pg_backend_pid(), pg_current_xact_id()::text, leader, acquired_at"
        f" FROM {table}; RETURN NULL; END $$",
        "CREATE TRIGGER note_reaping AFTER DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION note_reaping()",
    )
    columns = ", ".join(Reaping._fields)
    return lambda: [Reaping(*row) for row in server.query(f"SELECT {columns} FROM reapings ORDER BY n")]
