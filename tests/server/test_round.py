"""What one table of a sweep costs the others, and how soon a sweep ends that is to end."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from harness.reaper import PATIENT, Gate, wait_for
from scenery import log
from scenery.barriers import BY_HAND, adopted, arm, arm_many, count, until_empty
from scenery.policies import add, go, until_rows, watched, write

LEAVES = 12


def test_once_it_is_switched_off_a_sweep_comes_to_no_other_table(make_server: Callable[..., Server]) -> None:
    server = make_server({**PATIENT, **BY_HAND})
    for table in ("public.jobs", "public.others"):
        adopted(server, table)
    gate = Gate(server, "gate", table="public.jobs")
    arm(server, "gate", table="public.jobs")
    go(server)
    gate.wait_for_arrival()
    server.set(**BY_HAND)
    arm(server, "kept", table="public.others")
    gate.open()
    wait_for(server, "disabled")
    assert (count(server, "public.jobs"), count(server, "public.others")) == (0, 1)


def test_reloads_that_come_often_starve_no_table(make_server: Callable[..., Server]) -> None:
    server = make_server({**PATIENT, **BY_HAND, "pg_reaper.batch_size": "1"})
    for table in ("public.jobs", "public.others"):
        adopted(server, table)
    # While it is swept there is always another reload.
    server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_reload_conf(), pg_sleep(0.2); RETURN OLD; END $$",
        "ALTER FUNCTION slow() SECURITY DEFINER",
        "CREATE TRIGGER slow BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    arm_many(server, 1000, "now() - n * interval '1 s'", table="public.jobs")
    arm(server, "due", table="public.others")
    go(server)
    until_empty(server, "public.others")
    assert count(server, "public.jobs") > 900


def test_many_leaves_that_somebody_holds_cost_a_sweep_one_wait(make_server: Callable[..., Server]) -> None:
    # No second sweep comes in between, whose patience is its own.
    server = make_server({"pg_reaper.interval": "60s", "pg_reaper.lease_duration": "600s", **BY_HAND})
    server.execute(
        "CREATE TABLE parts (id text, due timestamptz, n int) PARTITION BY LIST (n)",
        *(f"CREATE TABLE parts_{n} PARTITION OF parts FOR VALUES IN ({n})" for n in range(LEAVES)),
        "CREATE INDEX ON parts (due)",
    )
    add(server, "parts")
    watched(server, "others")
    write(server, "others", "due")
    with server.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE parts IN ACCESS EXCLUSIVE MODE")
        go(server)
        until_rows(server, "others")
        failed = [entry for entry in log.warnings(server.log(), "sweep of public.parts_")]
        assert len(failed) == LEAVES
        waited = [entry.message for entry in failed if "could not obtain a lock" not in entry.message]
        assert len(waited) == 1, waited
        assert "lock timeout" in waited[0]
        assert {entry.detail for entry in failed} == {"SQLSTATE 55P03."}
        holder.execute("ROLLBACK")
    server.execute("INSERT INTO parts SELECT 'late', now(), n FROM generate_series(0, 11) AS n")
    server.set(**{"pg_reaper.interval": "1s"})
    wait_until(lambda: count(server, "parts"), (0).__eq__, "the leaves to be swept again")
