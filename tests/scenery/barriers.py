"""Barriers to be reaped or left alone, in the extension's table or an adopted one."""

from __future__ import annotations

from typing import Any

from harness import Server, wait_until

BUILTIN = "public.pg_barrier_state"

# The barrier protocol, without the checks of the extension's own table.
COLUMNS = (
    "execution_id text PRIMARY KEY, organization_id text NOT NULL DEFAULT '', remaining integer,"
    " expires_at timestamptz, last_progress_at timestamptz DEFAULT now()"
)

# A worker that leaves everything to pg_reaper_sweep().
BY_HAND = {"pg_reaper.enabled": "off"}


def arm(server: Server, *ids: str, due: str = "-1 s", remaining: int = 1, table: str = BUILTIN, **where: Any) -> None:
    """Arms barriers whose deadline lies ``due`` from now."""
    created = ", created_at" if table == BUILTIN else ""
    moment = ", now() - interval '1 day'" if table == BUILTIN else ""
    server.query(
        f"INSERT INTO {table} (execution_id, remaining, expires_at{created})"
        f" SELECT id, {remaining}, now() + interval '{due}'{moment} FROM unnest(%s::text[]) AS id",
        [list(ids)],
        **where,
    )


def arm_many(server: Server, rows: int, deadline: str, table: str = BUILTIN, prefix: str = "b") -> None:
    """Arms ``rows`` barriers; ``deadline`` is an expression over the row's number ``n``."""
    created = ", created_at" if table == BUILTIN else ""
    moment = ", '-infinity'" if table == BUILTIN else ""
    server.execute(
        f"INSERT INTO {table} (execution_id, remaining, expires_at{created})"
        f" SELECT '{prefix}' || n, 1, {deadline}{moment} FROM generate_series(1, {rows}) AS n"
    )


def count(server: Server, table: str = BUILTIN, **where: Any) -> int:
    """How many rows a table has."""
    return server.value(f"SELECT count(*) FROM {table}", **where)


def ids(server: Server, table: str = BUILTIN) -> list[str]:
    """The execution ids that are left, in order."""
    return [row[0] for row in server.query(f"SELECT execution_id FROM {table} ORDER BY 1")]


def until_left(server: Server, left: list[str], table: str = BUILTIN, timeout: float = 30) -> None:
    """Waits until exactly these barriers are left."""
    wait_until(lambda: ids(server, table), lambda now: now == left, f"{left} to be left in {table}", timeout)


def until_empty(server: Server, table: str = BUILTIN, timeout: float = 30) -> None:
    """Waits until the worker has reaped everything."""
    wait_until(lambda: count(server, table), lambda n: n == 0, f"{table} to be empty", timeout)


def adopted(server: Server, table: str, columns: str = COLUMNS, suffix: str = "", index: bool = True) -> None:
    """Makes a table of the application, and has pg_reaper watch it."""
    server.execute(f"CREATE TABLE {table} ({columns}) {suffix}")
    if index:
        server.execute(f"CREATE INDEX ON {table} (expires_at)")
    server.query("SELECT pg_reaper_adopt(%s::regclass)", [table])


def status(server: Server) -> dict[str, Any]:
    """What the worker tells about itself, as soon as there is one."""
    (row,) = wait_until(lambda: statuses(server), bool, "a worker of postgres")
    return row


def statuses(server: Server) -> list[dict[str, Any]]:
    """What the workers of ``postgres`` tell about themselves: none, where none has come yet."""
    columns = "pid, state, term, last_cycle, last_sweep, rows_reaped, errors, failures_in_a_row, last_error"
    rows = server.query(f"SELECT {columns} FROM pg_reaper_status() WHERE database = 'postgres'")
    return [dict(zip(columns.split(", "), row, strict=True)) for row in rows]


def until_leading(server: Server) -> dict[str, Any]:
    """Waits until the worker leads; its status then."""
    return wait_until(
        lambda: statuses(server), lambda rows: [row["state"] for row in rows] == ["leader"], "the worker to lead"
    )[0]
