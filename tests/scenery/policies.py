"""Tables of an application whose rows expire, and the policies that say when."""

from __future__ import annotations

from typing import Any

from harness import Server, wait_until

COLUMNS = "id text, due timestamptz, state text DEFAULT 'open'"
# The same, with a primary key.
KEYED = "id text PRIMARY KEY, due timestamptz, state text DEFAULT 'open'"

WAITS = (
    "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE a.backend_type = 'pg_reaper worker' AND NOT l.granted"
)


def go(server: Server) -> None:
    """Has a worker begin that idles until then."""
    server.set(**{"pg_reaper.enabled": "on"})


def add(server: Server, table: str, column: str = "due", user: str = "postgres", **settings: Any) -> int:
    """Has pg_reaper watch a table by one of its columns; the id of the policy."""
    named = "".join(f", {name} => %s" for name in settings)
    values = [table, column, *settings.values()]
    return server.value(f"SELECT pg_reaper_add_policy(%s::regclass, %s{named})", values, user=user)


def alter(server: Server, policy: int, **settings: Any) -> None:
    """Changes a policy."""
    named = "".join(f", {name} => %s" for name in settings)
    server.query(f"SELECT pg_reaper_alter_policy(%s{named})", [policy, *settings.values()])


def watched(server: Server, table: str, columns: str = COLUMNS, column: str = "due", **settings: Any) -> int:
    """Makes a table with an index on the column by which it is then watched; the policy's id."""
    server.execute(f"CREATE TABLE {table} ({columns})", f'CREATE INDEX ON {table} ("{column}")')
    return add(server, table, column, **settings)


def write(server: Server, table: str, *ids: str, due: str = "-1 s", state: str = "open") -> None:
    """Writes rows that are due so long from now."""
    server.query(
        f"INSERT INTO {table} (id, due, state) SELECT id, now() + %s::interval, %s FROM unnest(%s::text[]) AS id",
        [due, state, list(ids)],
    )


def rows(server: Server, table: str) -> list[str]:
    """The ids that are left, in order."""
    return [name for (name,) in server.query(f"SELECT id FROM {table} ORDER BY 1")]


def until_rows(server: Server, table: str, *left: str, timeout: float = 30) -> None:
    """Waits until exactly these rows are left."""
    wait_until(lambda: rows(server, table), lambda now: now == sorted(left), f"{left} to be left in {table}", timeout)


def suspended(server: Server, policy: int) -> str | None:
    """Why a policy is not swept."""
    return server.value("SELECT suspended FROM pg_reaper_policies WHERE policy = %s", [policy])


def sweep(server: Server, policy: int, **where: Any) -> int:
    """Sweeps one policy; how many rows were reaped."""
    return server.value("SELECT pg_reaper_sweep(policy => %s)", [policy], **where)


def shown(server: Server, policy: int, key: str = "id", **where: Any) -> list[str]:
    """What of each row the preview shows, in its order."""
    statement = "SELECT row_data ->> %s FROM pg_reaper_preview(%s, NULL)"
    return [value for (value,) in server.query(statement, [key, policy], **where)]


def change_while_it_waits(server: Server, leaf: str, change: str) -> None:
    """Has the worker wait for a table, and come to it when that has changed."""
    with server.connect() as session:
        session.execute("BEGIN")
        session.execute(f"LOCK TABLE {leaf} IN ACCESS EXCLUSIVE MODE")
        session.execute(change)
        wait_until(lambda: server.value(WAITS), description="the worker to wait")
        session.execute("COMMIT")
