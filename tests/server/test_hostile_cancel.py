"""Triggers that will not end: what runs too long is cut short, and nobody else waits for it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from scenery import log, mallory
from scenery.barriers import BUILTIN, adopted, arm, count, status, until_empty, until_leading
from scenery.policies import add, until_rows, watched, write

FOREVER = "LOOP PERFORM pg_sleep(0.01); END LOOP;"
# A statement of the worker's may run for a third of the two seconds of the lease.
SWALLOWING = {
    "by name": "LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;",
    "with everything else": (
        "LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled OR OTHERS THEN"
        " PERFORM count(*) FROM generate_series(1, 1000); END; END LOOP;"
    ),
}


def others_are_served(server: Server) -> None:
    """Barriers before and after her table, in the order of the policies, are reaped."""
    for table in (BUILTIN, "after_hers"):
        arm(server, "innocent", table=table)
        until_empty(server, table)


@pytest.fixture
def hers(server: Server) -> Server:
    """Mallory's table is watched, with another policy before it and one after."""
    mallory.moves_in(server)
    adopted(server, "after_hers")
    until_leading(server)
    return server


def test_a_trigger_that_loops_for_ever_is_cut_short_and_reported(hers: Server) -> None:
    worker = status(hers)["pid"]
    mallory.trigger(hers, FOREVER)
    mallory.orphan(hers)
    (failure, *_) = wait_until(lambda: log.failures(hers.log(), "hers.jobs"), bool, "the report")
    assert failure.detail.startswith("SQLSTATE 57014")
    assert "pg_reaper.statement_timeout" in failure.hint
    assert "hers.jobs" in status(hers)["last_error"]
    others_are_served(hers)
    # It was the statement that ended, not the worker.
    assert status(hers)["pid"] == worker
    hers.execute("DROP TRIGGER evil ON hers.jobs")
    until_empty(hers, mallory.TABLE)


def test_a_large_batch_that_times_out_again_and_again_does_not_let_the_lease_lapse(hers: Server) -> None:
    # It is halved ten times over before one row is left to blame. Meanwhile the leader must
    # renew, or an outside reaper that shares its lease takes it.
    mallory.trigger(hers, FOREVER)
    mallory.orphan(hers, *[f"bait {n}" for n in range(1000)])
    ages: list[float] = []

    def reported() -> bool:
        ages.append(hers.value("SELECT extract(epoch FROM clock_timestamp() - acquired_at)::float8 FROM pg_reaper_lease"))
        return bool(log.failures(hers.log(), "hers.jobs"))

    wait_until(reported, bool, "the report", timeout=60)
    # The lease is two seconds: a margin must be left to a rival's look at the row.
    assert max(ages) < 1.5
    others_are_served(hers)


@pytest.mark.parametrize("how", SWALLOWING)
def test_a_swallowed_cancellation_is_overruled_and_the_worker_comes_back(hers: Server, how: str) -> None:
    worker = status(hers)["pid"]
    mallory.trigger(hers, SWALLOWING[how])
    mallory.orphan(hers)
    policy = hers.value("SELECT id FROM pg_reaper_policy WHERE relation = 'hers.jobs'::regclass")
    wait_until(
        lambda: log.warnings(hers.log(), f"pg_reaper leaves hers.jobs (policy {policy}) alone for a while"),
        bool,
        "the log to name the policy",
    )
    wait_until(hers.worker_pids, lambda pids: pids not in ([], [worker]), "a successor")
    others_are_served(hers)
    seen = status(hers)
    assert seen["errors"] >= 1
    assert re.search(r"a function of the table with OID \d+ swallowed the cancellation", seen["last_error"])

    # Left alone for longer each time, so that the others have the worker to themselves.
    wait_until(
        lambda: status(hers)["failures_in_a_row"], lambda n: n >= 2, "the policy to be left alone a second time"
    )
    assert count(hers, mallory.TABLE) == 1

    # Healed, it is served like any other, and forgiven.
    hers.execute("DROP TRIGGER evil ON hers.jobs")
    until_empty(hers, mallory.TABLE)
    wait_until(lambda: status(hers)["failures_in_a_row"], lambda n: n == 0, "the policy to be forgiven")
    wait_until(hers.log, lambda text: "sweep of hers.jobs goes through again" in text, "the log to say so")


def test_a_cancellation_swallowed_while_the_worker_only_looks_is_overruled_too(hers: Server) -> None:
    # PostgreSQL runs this function whenever it plans a statement on her table.
    hers.execute(
        "CREATE FUNCTION hers.slow(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN"
        f" IF session_user <> 'mallory' THEN {SWALLOWING['by name']} END IF; RETURN true; END $$",
        "CREATE INDEX ON hers.jobs (remaining) WHERE hers.slow('x')",
        user="mallory",
    )
    wait_until(lambda: log.warnings(hers.log(), "swallowed the cancellation"), bool, "the worker to be ended")
    others_are_served(hers)


def test_a_setting_that_makes_errors_fatal_ends_a_worker_and_not_the_service(hers: Server) -> None:
    worker = status(hers)["pid"]
    mallory.trigger(hers, "SET exit_on_error = on; RAISE 'gone';")
    mallory.orphan(hers)
    wait_until(hers.worker_pids, lambda pids: pids not in ([], [worker]), "a successor")
    others_are_served(hers)
    wait_until(lambda: status(hers)["failures_in_a_row"], lambda n: n >= 2, "the table to be left alone")
    hers.execute("DROP TRIGGER evil ON hers.jobs")
    until_empty(hers, mallory.TABLE)


def test_a_caller_who_cancels_a_sweep_by_hand_ends_the_call(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.enabled": "off"})
    mallory.moves_in(server)
    mallory.trigger(server, FOREVER)
    mallory.orphan(server)
    arm(server, "innocent")
    with server.connect() as session:
        session.execute("SET statement_timeout = '300ms'")
        with pytest.raises(Exception, match="canceling statement due to statement timeout"):
            session.execute("SELECT pg_reaper_sweep()")
    # Nothing of the call stands, the other table's rows included: it was the caller who ended it.
    assert count(server) == 1
    assert count(server, mallory.TABLE) == 1


def test_two_tables_that_end_workers_in_turn_starve_nobody(hers: Server) -> None:
    # Each worker spares the table that ended the one before, and would end at the other.
    hers.execute(
        "CREATE TABLE hers.more (LIKE hers.jobs INCLUDING DEFAULTS)", "CREATE INDEX ON hers.more (expires_at)",
        "SELECT pg_reaper_disown('after_hers')", "SELECT pg_reaper_adopt('hers.more')",
        "SELECT pg_reaper_adopt('after_hers')",
    )  # fmt: skip
    mallory.trigger(hers, SWALLOWING["by name"])
    hers.execute("CREATE TRIGGER evil BEFORE DELETE ON hers.more FOR EACH ROW EXECUTE FUNCTION hers.evil()")
    mallory.orphan(hers)
    arm(hers, "bait", table="hers.more")
    for table in ("hers.jobs", "hers.more"):
        alone = f"pg_reaper leaves {table} "
        wait_until(lambda: log.warnings(hers.log(), alone), bool, "both to have ended a worker")  # noqa: B023
    others_are_served(hers)
    # Longer each time, both of them.
    for table in ("hers.jobs", "hers.more"):
        again = re.compile(rf"pg_reaper leaves {table} .* [2-9] times in a row")
        wait_until(hers.log, again.search, f"{table} to be left alone for longer")  # noqa: B023
    others_are_served(hers)
    hers.execute("DROP TRIGGER evil ON hers.jobs", "DROP TRIGGER evil ON hers.more")
    until_empty(hers, mallory.TABLE)
    until_empty(hers, "hers.more")
    wait_until(lambda: status(hers)["failures_in_a_row"], lambda n: n == 0, "both to be forgiven")


def test_leaves_that_end_workers_starve_neither_another_leaf_nor_another_table(server: Server) -> None:
    server.execute(
        "CREATE TABLE parts (id text, due timestamptz, n int) PARTITION BY LIST (n)",
        *(f"CREATE TABLE parts_{n} PARTITION OF parts FOR VALUES IN ({n})" for n in range(3)),
        "CREATE INDEX ON parts (due)",
        "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF OLD.id = 'bad' THEN {SWALLOWING['by name']} END IF; RETURN OLD; END $$",
        "CREATE TRIGGER evil BEFORE DELETE ON parts FOR EACH ROW EXECUTE FUNCTION evil()",
        "INSERT INTO parts SELECT CASE n WHEN 2 THEN 'good' ELSE 'bad' END, now(), n FROM generate_series(0, 2) AS n",
    )
    add(server, "parts")
    watched(server, "others")
    ended = re.compile(r"pg_reaper leaves public\.parts_[01] .* [2-9] times in a row")
    wait_until(server.log, ended.search, "two workers to have ended")
    write(server, "others", "due")
    until_rows(server, "others")
    until_rows(server, "parts", "bad", "bad")
    server.execute("DROP TRIGGER evil ON parts")
    until_rows(server, "parts", timeout=90)


def test_a_leaf_that_ended_a_worker_is_forgotten_with_it(server: Server) -> None:
    server.execute(
        "CREATE TABLE parts (id text, due timestamptz, n int) PARTITION BY LIST (n)",
        *(f"CREATE TABLE parts_{n} PARTITION OF parts FOR VALUES IN ({n})" for n in range(2)),
        "CREATE INDEX ON parts (due)",
        "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" {SWALLOWING['by name']} RETURN OLD; END $$",
        "CREATE TRIGGER evil BEFORE DELETE ON parts_0 FOR EACH ROW EXECUTE FUNCTION evil()",
        "INSERT INTO parts VALUES ('bad', now(), 0)",
    )
    add(server, "parts")
    wait_until(lambda: log.warnings(server.log(), "pg_reaper leaves public.parts_0 "), bool, "a worker to have ended")
    server.execute("DROP TABLE parts_0", "INSERT INTO parts VALUES ('good', now(), 1)")
    until_rows(server, "parts")
    wait_until(lambda: status(server)["failures_in_a_row"], lambda n: n == 0, "the leaf to be forgotten")
