"""What was stopped and then dropped is forgotten: it neither fills memory nor outlives itself."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from scenery import log
from scenery.fleet import make_database, until_leading, until_served, workers

# More than there is room for in shared memory.
MANY = 130


def test_databases_that_were_stopped_and_dropped_take_no_room(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "postgres, last"})
    make_database(server, "original")
    until_leading(server, "postgres")
    for _ in range(MANY):
        server.execute("CREATE DATABASE brief TEMPLATE original STRATEGY file_copy")
        server.execute("SELECT pg_reaper_stop()", dbname="brief")
        server.execute("DROP DATABASE brief")
    make_database(server, "last")
    until_leading(server, "last")
    until_served(server, ["last", "postgres"])
    assert log.warnings(server.log(), "no worker slot is free") == []


def test_an_extension_that_is_created_anew_after_a_stop_is_not_silently_without_a_worker(server: Server) -> None:
    make_database(server, "other")
    until_leading(server, "other", "postgres")
    told: list[str] = []
    with server.connect("other") as session:
        session.execute("SELECT pg_reaper_stop()")
        session.execute("DROP EXTENSION pg_reaper")
        session.add_notice_handler(lambda notice: told.append(notice.message_hint or ""))
        session.execute("CREATE EXTENSION pg_reaper")
    # Either it is started, or it says what to do.
    if not any("pg_reaper_start()" in hint for hint in told):
        wait_until(lambda: workers(server, "other"), lambda now: len(now) == 1, "its worker")
