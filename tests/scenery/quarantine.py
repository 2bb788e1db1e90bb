"""Rows that cannot be reaped, and where they are written down."""

from __future__ import annotations

from typing import Any

from psycopg.rows import namedtuple_row

from harness import Server, wait_until


def held(server: Server, policy: int | None = None, **where: Any) -> list[Any]:
    """The rows in quarantine, in the order of their keys, their columns by name."""
    with server.connect(row_factory=namedtuple_row, **where) as connection:
        statement = "SELECT * FROM pg_reaper_quarantine WHERE policy = coalesce(%s, policy) ORDER BY key"
        return connection.execute(statement, [policy]).fetchall()


def keys(server: Server, policy: int | None = None, key: str = "id") -> list[Any]:
    """What the keys of these rows say."""
    return [row.key.get(key) for row in held(server, policy)]


def until_held(server: Server, *ids: Any, policy: int | None = None, key: str = "id", timeout: float = 30) -> list[Any]:
    """Waits until exactly these rows are in quarantine."""
    wait_until(
        lambda: keys(server, policy, key), lambda now: now == sorted(ids), f"{ids} to be in quarantine", timeout
    )
    return held(server, policy)


def until_tried(server: Server, times: int, policy: int | None = None, timeout: float = 60) -> list[Any]:
    """Waits until each row in quarantine has failed so often."""
    return wait_until(
        lambda: held(server, policy),
        lambda rows: rows and all(row.tries >= times for row in rows),
        f"{times} tries of each",
        timeout,
    )


def refuse(server: Server, table: str, rows: str = "OLD.id ~ '^bad'", complaint: str | None = None) -> None:
    """Some rows of a table cannot be deleted."""
    complaint = complaint or "RAISE 'not %%', OLD.id"
    name = "refuse_" + table.replace(".", "_")
    server.execute(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF {rows} THEN {complaint.replace('%%', '%')}; END IF; RETURN OLD; END $$",
        f"CREATE OR REPLACE TRIGGER refuse BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
    )


def mend(server: Server, table: str) -> None:
    """They can be deleted again."""
    server.execute(f"DROP TRIGGER refuse ON {table}")
