"""A row moves to another partition while it is being reaped: it goes once, from where it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from harness import Server, wait_until
from harness.reaper import waits_for_lock
from scenery.barriers import BY_HAND
from scenery.policies import add, until_rows

TURNS = 20


def moving(make_server: Callable[..., Server], **settings: str) -> Server:
    """A server with a partitioned table, and a worker that idles."""
    server = make_server({**settings, **BY_HAND})
    server.execute(
        "CREATE TABLE events (id text, part int, due timestamptz) PARTITION BY LIST (part)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)",
        "CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2)",
        "CREATE INDEX ON events (due)",
    )
    return server


def test_whoever_moves_a_row_that_a_sweep_waits_for_does_not_make_it_fail(make_server: Callable[..., Server]) -> None:
    server = moving(make_server)
    policy = add(server, "events")
    met = 0
    with ThreadPoolExecutor(1) as pool, server.connect() as mover, server.connect() as sweeper:
        pid = sweeper.info.backend_pid
        for turn in range(TURNS):
            server.execute(f"INSERT INTO events VALUES ('{turn}', 1, now() - interval '1 s')")
            mover.execute("BEGIN")
            mover.execute("UPDATE events SET part = 2 WHERE part = 1")
            sweep = pool.submit(sweeper.execute, "SELECT pg_reaper_sweep(policy => %s)", [policy])
            # A batch waits for a moment only, and the move is to end within that.
            deadline = time.monotonic() + 5
            while not sweep.done() and not waits_for_lock(server, pid) and time.monotonic() < deadline:
                pass
            met += not sweep.done()
            mover.execute("COMMIT")
            sweep.result(timeout=30)
            server.value("SELECT pg_reaper_sweep(policy => %s)", [policy])
            assert server.value("SELECT count(*) FROM events") == 0
    assert met, "no sweep was met while it waited"


def test_the_worker_finds_it_where_it_is(make_server: Callable[..., Server]) -> None:
    server = moving(make_server, **{"pg_reaper.interval": "50ms"})
    add(server, "events")
    server.execute("INSERT INTO events VALUES ('moved', 1, now() - interval '1 h')")
    with server.connect() as mover:
        mover.execute("BEGIN")
        mover.execute("UPDATE events SET part = 2")
        server.set(**{"pg_reaper.enabled": "on"})
        server.execute("INSERT INTO events VALUES ('other', 1, now()), ('third', 2, now())")
        wait_until(lambda: server.value("SELECT count(*) FROM events"), (1).__eq__, "the others to go")
        mover.execute("COMMIT")
    until_rows(server, "events")
