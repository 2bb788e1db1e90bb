"""An error in a sweep stays small: rolled back, reported once a try, and gone when it is healed."""

from __future__ import annotations

import re

import pytest

from harness import Server, wait_until
from harness.reaper import until_taken_up
from scenery import log
from scenery.barriers import adopted, arm, count, ids, status, until_empty, until_leading, until_left

TABLE = "public.jobs"


@pytest.fixture
def jobs(server: Server) -> Server:
    """A server whose worker leads, with a table adopted before another, and without a quarantine."""
    server.set(**{"pg_reaper.quarantine_limit": 0})
    adopted(server, TABLE)
    adopted(server, "public.others")
    until_leading(server)
    return server


def refuse(server: Server, complaint: str = "RAISE 'no: %', OLD.execution_id") -> None:
    """No row of the table can be deleted."""
    server.execute(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {complaint}; RETURN OLD; END $$",
        f"CREATE TRIGGER refuse BEFORE DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


def until_failed(server: Server, times: int = 1, table: str = TABLE) -> list[log.Entry]:
    """Waits until the sweep of a table has failed so often; the reports."""
    return wait_until(
        lambda: log.failures(server.log(), table), lambda found: len(found) >= times, f"{times} failures of {table}"
    )


def test_a_failed_sweep_poisons_nothing_and_the_same_process_reaps_once_it_is_healed(jobs: Server) -> None:
    # The original's worst bug: an aborted transaction that every later cycle ran into, while
    # the process went on holding the lease.
    before = status(jobs)
    refuse(jobs)
    arm(jobs, "stubborn", table=TABLE)
    until_failed(jobs, 3)

    arm(jobs, "innocent", table="public.others")
    until_empty(jobs, "public.others")
    arm(jobs, "innocent")
    until_empty(jobs)

    jobs.execute("DROP TRIGGER refuse ON jobs")
    until_empty(jobs, TABLE)
    after = status(jobs)
    assert (after["pid"], after["term"], after["state"]) == (before["pid"], before["term"], "leader")


def test_a_failure_is_rolled_back_and_reported_with_what_an_operator_needs(jobs: Server) -> None:
    refuse(
        jobs,
        "RAISE EXCEPTION USING ERRCODE = 'ZZ123', MESSAGE = 'the budget is spent', DETAIL = 'It was 3.',"
        " HINT = 'Ask finance.'",
    )
    arm(jobs, "a", "b", table=TABLE)
    (failure, *_) = until_failed(jobs)
    assert re.fullmatch(
        r"sweep of public\.jobs failed, next try in [\d.]+ s: the budget is spent", failure.message
    ), failure.message
    assert failure.detail == "SQLSTATE ZZ123: It was 3."
    assert failure.hint == "Ask finance."
    assert ids(jobs, TABLE) == ["a", "b"]


def test_an_error_that_gives_no_hint_gets_one(jobs: Server) -> None:
    refuse(jobs)
    arm(jobs, "x", table=TABLE)
    (failure, *_) = until_failed(jobs)
    assert failure.hint.startswith("The batch was rolled back; mend what the message names")


def test_a_failure_that_repeats_is_counted_and_left_alone_for_longer_each_time(jobs: Server) -> None:
    refuse(jobs)
    arm(jobs, "x", table=TABLE)
    reports = until_failed(jobs, 5)
    said = [re.search(r"failed(?: (\d+) times in a row)?, next try in ([\d.]+) s", r.message) for r in reports[:5]]
    assert [int(match[1] or 1) for match in said] == [1, 2, 3, 4, 5]
    assert [float(match[2]) for match in said] == [0.1, 0.2, 0.4, 0.8, 1.6]
    # The wait is kept: no try comes before it was announced.
    tries = [line for line in jobs.log().split("\n") if "sweep of public.jobs failed" in line]
    moments = jobs.query("SELECT moment::timestamp FROM unnest(%s::text[]) AS moment", [[t[:23] for t in tries[:5]]])
    for (earlier,), (later,), wait in zip(moments, moments[1:], [0.1, 0.2, 0.4, 0.8], strict=False):
        # The time in the log is cut to milliseconds.
        assert (later - earlier).total_seconds() >= wait - 0.002
    seen = wait_until(lambda: status(jobs), lambda row: row["failures_in_a_row"] >= 5, "five failures in a row")
    assert seen["errors"] >= 5


def test_status_tells_success_from_failure(jobs: Server) -> None:
    refuse(jobs)
    arm(jobs, "x", table=TABLE)
    until_failed(jobs, 2)
    # It is in the log a moment before.
    failing = wait_until(lambda: status(jobs), lambda row: row["failures_in_a_row"] >= 2, "two failures in a row")
    assert failing["last_error"].startswith("public.jobs: no: x")
    assert failing["last_error"].endswith("(SQLSTATE P0001)")
    # Cycles go on, and are not taken for sweeps that succeeded.
    later = wait_until(lambda: status(jobs), lambda now: now["last_cycle"] > failing["last_cycle"], "another cycle")
    assert later["last_sweep"] == failing["last_sweep"]

    jobs.execute("DROP TRIGGER refuse ON jobs")
    until_empty(jobs, TABLE)
    healed = wait_until(lambda: status(jobs), lambda now: now["failures_in_a_row"] == 0, "the count to be reset")
    wait_until(
        jobs.log, lambda text: "sweep of public.jobs goes through again, after" in text, "the log to say that it heals"
    )
    wait_until(lambda: status(jobs)["last_sweep"], lambda at: at > failing["last_cycle"], "a successful sweep")
    assert healed["last_error"].startswith("public.jobs: no: x")


def test_a_reload_has_a_failed_policy_tried_again_at_once(jobs: Server) -> None:
    jobs.set(**{"pg_reaper.interval": "3s", "pg_reaper.lease_duration": "60s"})
    refuse(jobs)
    arm(jobs, "x", table=TABLE)
    until_failed(jobs)
    until_failed(jobs, 2)
    # Six seconds are to be waited now.
    jobs.execute("DROP TRIGGER refuse ON jobs")
    jobs.reload()
    until_empty(jobs, TABLE, timeout=5)


def test_the_batches_before_the_one_that_fails_stand(jobs: Server) -> None:
    jobs.set(**{"pg_reaper.batch_size": 2})
    until_taken_up(jobs)
    refuse(jobs, "IF OLD.execution_id = 'b3' THEN RAISE 'not this one'; END IF")
    jobs.execute(
        "INSERT INTO jobs SELECT 'b' || n, '', 1, '2020-01-01'::timestamptz + n * interval '1 s'"
        " FROM generate_series(1, 5) n"
    )
    until_failed(jobs)
    assert ids(jobs, TABLE)[:3] == ["b3", "b4", "b5"]


@pytest.mark.parametrize("column", ["execution_id", "expires_at"])
def test_a_column_that_is_renamed_is_reported_and_heals(jobs: Server, column: str) -> None:
    arm(jobs, "x", due="1 s", table=TABLE)
    jobs.execute(f"ALTER TABLE jobs RENAME {column} TO elsewhere")
    # A batch under way may have met it first, and says so in PostgreSQL's own words.
    named = lambda: [told for told in log.failures(jobs.log(), TABLE) if f'has no column "{column}"' in told.message]  # noqa: E731
    (failure, *_) = wait_until(named, bool, "the report that names the column")
    assert failure.detail.startswith("SQLSTATE 42703")
    assert count(jobs, TABLE) == 1
    arm(jobs, "innocent")
    until_empty(jobs)
    jobs.execute(f"ALTER TABLE jobs RENAME elsewhere TO {column}")
    until_empty(jobs, TABLE)


def test_a_column_that_changes_its_type_is_reported(jobs: Server) -> None:
    jobs.execute("ALTER TABLE jobs ALTER expires_at TYPE timestamp")
    said = 'column "expires_at" of table public.jobs has type timestamp, not timestamptz'
    # A sweep under way may see first that something has changed.
    (failure, *_) = wait_until(
        lambda: [each for each in log.failures(jobs.log(), TABLE) if said in each.message], bool, "the report"
    )
    assert failure.detail.startswith("SQLSTATE 42804")


def test_the_policy_of_a_dropped_table_ends_without_a_complaint(jobs: Server) -> None:
    jobs.execute("DROP TABLE jobs")
    wait_until(lambda: jobs.value("SELECT count(*) FROM pg_reaper_policy"), lambda n: n == 2, "the policy to end")
    arm(jobs, "innocent", table="public.others")
    until_left(jobs, [], "public.others")
    assert [entry for entry in log.warnings(jobs.log()) if "orphan" not in entry.message] == []
