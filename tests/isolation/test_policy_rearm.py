"""Rows that change while a policy is swept: never a live row (invariant 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from harness import Server, wait_until
from harness.reaper import PATIENT, status, wait_for
from scenery.policies import add, rows, until_rows

# The worker goes on with what it has read, and waits at a gate, for as long as a test wants it to.
UNHURRIED = {
    **PATIENT,
    "pg_reaper.interval": "10s",
    "pg_reaper.enabled": "off",
    "pg_reaper.batch_size": "1",
    "deadlock_timeout": "60s",
}


class Gate:
    """Holds up whoever deletes one row, before it goes, until opened. Its id begins with ``gate``."""

    def __init__(self, server: Server, table: str, name: str = "gate") -> None:
        self.server, self.name = server, name
        server.execute(
            "CREATE OR REPLACE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext(OLD.id)); RETURN OLD; END $$",
            f"CREATE OR REPLACE TRIGGER gate BEFORE DELETE ON {table} FOR EACH ROW"
            " WHEN (OLD.id ~ '^gate') EXECUTE FUNCTION gate()",
        )
        self.session = server.connect()
        self.session.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])

    def wait_for_arrival(self) -> None:
        """Waits until somebody is held up here, and not for the moment that a batch is patient for."""
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND waitstart < clock_timestamp() - interval '500 ms'"
            " AND objid = hashtext(%s)::bigint & 4294967295"
        )
        wait_until(lambda: self.server.value(waiting, [self.name]), bool, f"somebody at {self.name}")

    def open(self) -> None:
        """Lets them go on."""
        self.session.close()


class Sweep:
    """A sweep under way, by the worker or by a session of its own."""

    def __init__(self, server: Server, by: str) -> None:
        self.server, self.by, self.pool = server, by, ThreadPoolExecutor(2)
        self.call: Future[Any] | None = None

    def start(self) -> None:
        if self.by == "function":
            self.call = self.pool.submit(self.server.value, "SELECT pg_reaper_sweep()")
        else:
            self.server.set(**{"pg_reaper.enabled": "on"})

    def finish(self) -> None:
        if self.call:
            self.call.result(timeout=30)
        else:
            wait_until(lambda: status(self.server).last_sweep, bool, "the sweep to end")


@pytest.fixture(params=["worker", "function"])
def sweep(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> Iterator[Sweep]:
    """A server whose worker waits to be told to sweep, and one that is swept by hand."""
    server = make_server(UNHURRIED)
    wait_for(server, "disabled")
    sweep = Sweep(server, request.param)
    yield sweep
    sweep.pool.shutdown()


def table(server: Server, how: str = "") -> None:
    server.execute(f"CREATE TABLE jobs (id text, made timestamptz, state text) {how}", "CREATE INDEX ON jobs (made)")


def dead(server: Server, *ids: str, state: str = "done") -> None:
    """Rows that are due, the first longest ago."""
    server.query(
        "INSERT INTO jobs SELECT id, now() - interval '1 year' + n * interval '1 s', %s"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS u (id, n)",
        [state, list(ids)],
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"ttl": "1 day"},
        {"ttl": "1 mon"},
        {"ttl": "1 mon", "time_zone": "Europe/Berlin"},
        {"ttl": "1 h", "filter": "state = 'done'"},
    ],
)
@pytest.mark.parametrize("change", ["made = now()", "made = NULL", "made = 'infinity'"])
def test_a_row_renewed_before_its_batch_survives(sweep: Sweep, settings: dict[str, str], change: str) -> None:
    server = sweep.server
    table(server)
    add(server, "jobs", "made", **settings)
    gate = Gate(server, "jobs")
    dead(server, "gate", "renewed", "left alone")
    sweep.start()
    gate.wait_for_arrival()
    server.execute(f"UPDATE jobs SET {change} WHERE id = 'renewed'")
    gate.open()
    until_rows(server, "jobs", "renewed")
    sweep.finish()
    assert rows(server, "jobs") == ["renewed"]


def test_a_row_that_the_filter_leaves_out_by_the_time_of_its_batch_survives(sweep: Sweep) -> None:
    server = sweep.server
    table(server)
    add(server, "jobs", "made", filter="state = 'done'")
    gate = Gate(server, "jobs")
    dead(server, "gate", "reopened", "left alone")
    sweep.start()
    gate.wait_for_arrival()
    server.execute("UPDATE jobs SET state = 'open' WHERE id = 'reopened'")
    gate.open()
    until_rows(server, "jobs", "reopened")
    sweep.finish()
    assert rows(server, "jobs") == ["reopened"]


@pytest.mark.parametrize("change", ["made = now()", "state = 'open'"])
def test_a_renewal_that_meets_the_batch_holds_or_is_told_that_the_row_is_gone(
    make_server: Callable[..., Server], change: str
) -> None:
    server = make_server({**UNHURRIED, "pg_reaper.batch_size": "1000"})
    wait_for(server, "disabled")
    table(server)
    add(server, "jobs", "made", ttl="1 h", filter="state = 'done'")
    gate = Gate(server, "jobs")
    dead(server, "gate", "renewed")
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(server.value, "SELECT pg_reaper_sweep()")
        gate.wait_for_arrival()
        session = server.connect()
        renewal = pool.submit(lambda: session.execute(f"UPDATE jobs SET {change} WHERE id = 'renewed'").rowcount)
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE jobs%%'"
        wait_until(lambda: renewal.done() or server.value(blocked) == 1, bool, "the renewal to go through or to wait")
        gate.open()
        changed = renewal.result(timeout=30)
        call.result(timeout=30)
    assert rows(server, "jobs") == (["renewed"] if changed else [])


def test_a_row_whose_renewal_is_not_committed_yet_is_passed_over(sweep: Sweep) -> None:
    server = sweep.server
    table(server)
    add(server, "jobs", "made", ttl="1 h")
    dead(server, "renewed", "left alone")
    session = server.connect(autocommit=False)
    session.execute("UPDATE jobs SET made = now() WHERE id = 'renewed'")
    sweep.start()
    sweep.finish()
    assert rows(server, "jobs") == ["renewed"]
    session.commit()
    assert server.value("SELECT pg_reaper_sweep()") == 0
    assert rows(server, "jobs") == ["renewed"]


@pytest.mark.parametrize("renewed", [True, False])
def test_a_row_that_moves_to_another_partition_during_the_sweep_is_judged_by_what_it_is_there(
    sweep: Sweep, renewed: bool
) -> None:
    server = sweep.server
    table(server, "PARTITION BY LIST (state)")
    server.execute(
        "CREATE TABLE jobs_done PARTITION OF jobs FOR VALUES IN ('done')",
        "CREATE TABLE jobs_open PARTITION OF jobs FOR VALUES IN ('open')",
    )
    add(server, "jobs", "made", ttl="1 h")
    gate = Gate(server, "jobs_done")
    dead(server, "gate", "moves", "left alone")
    sweep.start()
    gate.wait_for_arrival()
    made = "now()" if renewed else "made"
    server.execute(f"UPDATE jobs SET state = 'open', made = {made} WHERE id = 'moves'")
    gate.open()
    # The leaf that it moved to is swept after the one that it left.
    until_rows(server, "jobs", *(["moves"] if renewed else []))
    sweep.finish()
    assert rows(server, "jobs") == (["moves"] if renewed else [])


@pytest.mark.parametrize(("made", "state"), [("now()", "done"), ("now() - interval '1 day'", "open")])
@pytest.mark.parametrize("ttl", ["1 h", "1 mon"])
def test_a_row_in_the_place_of_one_that_was_due_is_judged_by_its_own_deadline_and_the_filter(
    make_server: Callable[..., Server], made: str, state: str, ttl: str
) -> None:
    # What a pass reads ahead is where rows lie. By the time of the batch VACUUM may have made room
    # there, and another row may have taken it.
    server = make_server({**UNHURRIED, "autovacuum": "off"})
    wait_for(server, "disabled")
    table(server)
    server.execute("ALTER TABLE jobs ADD wide text")
    if ttl == "1 mon":
        made = made.replace("1 day", "2 mon")
    add(server, "jobs", "made", ttl=ttl, filter="state = 'done'")
    first, second = Gate(server, "jobs", "gate 1"), Gate(server, "jobs", "gate 2")
    # Wide rows put the last one on a page far from the others, which no batch is at.
    wide = "(SELECT string_agg(md5(id || m), '') FROM generate_series(1, 50) AS m)"
    server.execute(
        f"INSERT INTO jobs SELECT id, made, 'done', {wide} FROM (VALUES (0, 'gate 1', now() - interval '12 mons'),"
        " (1, 'gate 2', now() - interval '11 mons'), (1000, 'moves away', now() - interval '10 mons')"
        " UNION ALL SELECT n, n::text, 'infinity' FROM generate_series(2, 402) AS n) AS rows (n, id, made) ORDER BY n"
    )
    place = "SELECT ctid::text FROM jobs WHERE id = %s"
    due = server.value(place, ["moves away"])
    server.set(**{"pg_reaper.enabled": "on"})
    first.wait_for_arrival()
    server.execute("DELETE FROM jobs WHERE id = 'moves away'")
    first.open()
    # The second batch began after that, so it does not keep VACUUM from removing the old row.
    second.wait_for_arrival()
    server.execute("VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) jobs")
    server.execute(f"INSERT INTO jobs SELECT id, {made}, '{state}', {wide} FROM (VALUES ('moved in')) AS v (id)")
    assert server.value(place, ["moved in"]) == due, "the test did not arrange what it wants to see"
    second.open()
    wait_until(lambda: "gate 2" not in rows(server, "jobs"), bool, "the gates to be reaped")
    wait_until(lambda: status(server).last_sweep, bool, "the sweep to end")
    assert "moved in" in rows(server, "jobs")


def test_two_sweeps_at_once_reap_every_row_once(make_server: Callable[..., Server]) -> None:
    server = make_server({**UNHURRIED, "pg_reaper.batch_size": "10"})
    table(server)
    policy = add(server, "jobs", "made", ttl="1 h", filter="state = 'done'")
    add(server, "jobs", "made", ttl="2 h")
    gate = Gate(server, "jobs")
    dead(server, "gate", *[f"row {n}" for n in range(100)])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.value, "SELECT pg_reaper_sweep(policy => %s)", [policy])
        # Held up in its first batch, whose ten rows are its own.
        gate.wait_for_arrival()
        second = server.value("SELECT pg_reaper_sweep()")
        gate.open()
        assert (first.result(timeout=30), second) == (10, 91)
    assert rows(server, "jobs") == []
