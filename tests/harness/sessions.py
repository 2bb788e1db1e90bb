"""Sessions on a throwaway server."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

# The longest wait before a session is opened, in seconds. With `make dawdle` tests wait as well as
# processes: what a test does next comes late on a busy machine.
DAWDLE = 0.12 if os.environ.get("PG_REAPER_DAWDLE") else 0.0


class Sessions:
    """How tests talk to a server that listens in ``directory`` on ``port``."""

    # The Unix socket lies in a folder of the server's own, so one port serves all.
    port = 5432

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connections: list[psycopg.Connection[Any]] = []

    def address(self, dbname: str = "postgres", user: str = "postgres") -> dict[str, Any]:
        """Connection parameters, for psycopg or for another process."""
        return {"host": str(self.directory), "port": self.port, "dbname": dbname, "user": user}

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """The address as one string, for psql and its kind."""
        return " ".join(f"{key}={value}" for key, value in self.address(dbname, user).items())

    def connect(
        self, dbname: str = "postgres", user: str = "postgres", autocommit: bool = True, **kwargs: Any
    ) -> psycopg.Connection[Any]:
        """A new session, closed when the server ends if not before."""
        connection = self._open(dbname, user, autocommit, **kwargs)
        self._connections = [c for c in self._connections if not c.closed]
        self._connections.append(connection)
        return connection

    def _open(
        self, dbname: str = "postgres", user: str = "postgres", autocommit: bool = True, **kwargs: Any
    ) -> psycopg.Connection[Any]:
        time.sleep(random.uniform(0, DAWDLE))
        return psycopg.connect(**self.address(dbname, user), autocommit=autocommit, **kwargs)

    def query(self, query: str, params: Sequence[Any] | None = None, **where: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement, run in a session of its own."""
        with self._open(**where) as connection:
            cursor = connection.execute(query, params)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, params: Sequence[Any] | None = None, **where: Any) -> Any:
        """The first column of the only row, or None if there is no row."""
        rows = self.query(query, params, **where)
        assert len(rows) <= 1, f"one row expected, {len(rows)} found: {query}"
        return rows[0][0] if rows else None

    def execute(self, *statements: str, **where: Any) -> None:
        """Runs statements one after the other, each in a transaction of its own."""
        with self._open(**where) as connection:
            for statement in statements:
                connection.execute(statement)

    def close_connections(self) -> None:
        """Closes what ``connect`` opened."""
        while self._connections:
            self._connections.pop().close()
