"""A crash undoes batches that did not wait for the disk, and nothing that anybody was told of."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from scenery import log
from scenery.barriers import adopted, arm, arm_many, count, ids, statuses, until_left

JOBS = "public.jobs"
ROWS = 200_000
# Nobody but pg_reaper sees to it that what is committed is written. Small batches make a long pass.
LAZY = {
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
    "pg_reaper.enabled": "off",
    "pg_reaper.interval": "1s",
    "pg_reaper.batch_size": "10",
}


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    server = make_server(LAZY)
    adopted(server, JOBS)
    arm(server, "alive", due="1 h", table=JOBS)
    return server


def crash(server: Server) -> None:
    """Crashes, and is back with a worker that does nothing. No process has time for last words, so
    what was not written by then is lost."""
    server.stop("immediate")
    server.configure({"pg_reaper.enabled": "off"})
    # ALTER SYSTEM has the last word.
    (server.data / "postgresql.auto.conf").write_text("")
    server.start()


def many(server: Server) -> None:
    arm_many(server, ROWS, "timestamptz '2020-01-01' + n * interval '1 s'", table=JOBS)
    server.execute("CHECKPOINT")


def test_what_was_logged_or_counted_before_a_crash_does_not_come_back(server: Server) -> None:
    server.set(**{"pg_reaper.log_limit": 30})
    many(server)
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: count(server, JOBS), lambda n: n < ROWS - 2000, "the pass to be under way")
    (status,) = statuses(server)
    told = set(log.orphans(server.log()))
    crash(server)
    left = set(ids(server, JOBS))
    assert len(told) == 30
    assert "alive" in left and not told & left
    assert status["rows_reaped"] <= ROWS + 1 - len(left)
    # What else was undone is simply done again.
    server.set(**{"pg_reaper.enabled": "on", "pg_reaper.batch_size": 1000})
    until_left(server, ["alive"], JOBS)
    lines = re.findall(r'reaped orphaned barrier "([^"]*)"', server.log())
    assert len(lines) == len(set(lines)), "a row was reported twice"


def test_rows_of_the_summary_line_do_not_come_back(server: Server) -> None:
    server.set(**{"pg_reaper.log_limit": 0})
    arm_many(server, 50, "timestamptz '2020-01-01' + n * interval '1 s'", table=JOBS)
    server.execute("CHECKPOINT")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(server.log, lambda said: "reaped 50 orphaned barriers" in said, "the summary line")
    crash(server)
    assert ids(server, JOBS) == ["alive"]


def test_rows_that_a_trigger_told_of_do_not_come_back(server: Server) -> None:
    server.set(**{"pg_reaper.log_limit": 0})
    server.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_notify('gone', OLD.execution_id); RETURN NULL; END $$",
        f"CREATE TRIGGER tell AFTER DELETE ON {JOBS} FOR EACH ROW EXECUTE FUNCTION tell()",
    )
    many(server)
    listener = server.connect()
    listener.execute("LISTEN gone")
    server.set(**{"pg_reaper.enabled": "on"})
    told = {notice.payload for notice in listener.notifies(timeout=30, stop_after=200)}
    crash(server)
    assert len(told) >= 200
    assert not told & set(ids(server, JOBS))
