"""The server that is measured on, and the tables that are made for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from harness import Server

from bench.options import Options
from bench.pace import Pace

# Large enough for tables and WAL, so that neither reads from disk nor a checkpoint fall into a
# measurement; and durable, as a server in earnest is.
CONFIG = {
    "fsync": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "256MB",
    "jit": "off",
    "pg_reaper.enabled": "off",
    # Full speed, but where it is said that the worker rests.
    "pg_reaper.duty_cycle": "100",
}

# What a server has that says nothing of it.
DEFAULT_DUTY_CYCLE = "2"

# A table beside the one that is measured, and how many of its rows have expired.
OTHER, FEW = "other", 100

COLUMNS = """
    execution_id text NOT NULL,
    organization_id text NOT NULL,
    remaining integer NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
"""

# In the order of their deadlines, as rows come in; those that have expired are the oldest.
FILL = """
INSERT INTO {table}
SELECT 'run-' || lpad(n::text, 9, '0'), 'org-' || n %% 100, 1, now() - interval '1 day',
    CASE WHEN n > %(expired)s THEN now() + interval '1 day' + n * interval '1 ms'
         WHEN %(tied)s THEN now() - interval '1 hour'
         ELSE now() - interval '2 hours' + n * interval '1 ms' END
FROM generate_series(1, %(rows)s) AS n
"""


class Stage:
    """A server with the reaper off, until something is measured."""

    def __init__(self, server: Server, options: Options, say: Callable[[str], None]) -> None:
        self.server = server
        self.options = options
        self.say = say
        self.pace = Pace()

    def table(self, name: str, rows: int, expired: int, tied: bool = False) -> None:
        """Makes the table anew, all its pages vacuumed and on disk. ``tied``: the expired rows have
        one and the same deadline."""
        with self.session() as session:
            session.execute(f"DROP TABLE IF EXISTS {name}")
            # Vacuum would come in the middle of one measurement and not of another.
            session.execute(f"CREATE TABLE {name} ({COLUMNS}) WITH (autovacuum_enabled = off)")
            values = {"rows": rows, "expired": expired, "tied": tied}
            session.execute(FILL.format(table=name), values)
            session.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (execution_id)")
            session.execute(f"CREATE INDEX ON {name} (expires_at)")
            session.execute(f"VACUUM (FREEZE, ANALYZE) {name}")
            watch(session, name)
            session.execute("CHECKPOINT")

    def other_table(self) -> None:
        """Makes a small table beside the one that is measured, for whoever shall not come to that one
        cold."""
        self.table(OTHER, 2 * FEW, FEW)

    def clear(self) -> None:
        """Removes every table that was made, so that no bar is measured beside another's."""
        made = (
            "SELECT c.oid::regclass::text FROM pg_class c"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND NOT EXISTS"
            " (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
        )
        self.server.execute(*(f"DROP TABLE {name}" for (name,) in self.server.query(made)))

    def check(self, name: str, live: int) -> None:
        """Refuses a measurement after which anything else is left than the live rows."""
        expired, left = self.server.query(
            f"SELECT count(*) FILTER (WHERE expires_at < now() - interval '1 min'), count(*) FROM {name}"
        )[0]
        if (expired, left) != (0, live):
            raise RuntimeError(f"{name} holds {left} rows, {expired} of them expired, where {live} live ones belong")

    def set(self, **settings: str | int | None) -> None:
        """Changes settings, for sessions and workers that start afterwards as well; None is the default."""
        self.server.set(**settings)

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """A fresh session that ends with the block."""
        with psycopg.connect(**self.server.address(), autocommit=True) as connection:
            yield connection

    @contextmanager
    def old_snapshot(self, table: str) -> Iterator[None]:
        """Another session's transaction, open all the while, that still sees all rows there are."""
        with psycopg.connect(**self.server.address()) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute(f"SELECT FROM {table} LIMIT 1")
            holds = "SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = %s"
            assert self.server.value(holds, [connection.info.backend_pid]), "the session holds no snapshot"
            yield
            connection.rollback()

    def wal(self) -> int:
        """How many bytes of WAL there have been."""
        return int(self.server.value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))


def watch(session: psycopg.Connection[Any], table: str) -> None:
    """Has the reaper watch a table."""
    session.execute("SELECT pg_reaper_add_policy(%s, 'expires_at')", [table])


def timed(work: Callable[[], object]) -> float:
    """How many seconds it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
