"""Mallory owns the shared lease table: what she hangs on it runs with each move of pg_reaper's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.outside_reaper import LEASE_COLUMNS, is_reapers, shared_lease, watch_reaping
from harness.reaper import AT_ONCE, barriers, lease, overdue, status, wait_for, wait_until_reaped
from scenery import log, mallory

TABLE = "hers.lock"

# Ways to more power than hers.
DEEDS = {
    "superuser": "ALTER ROLE mallory SUPERUSER",
    "reset role": "RESET ROLE; ALTER ROLE mallory SUPERUSER",
    "session authorization": "SET SESSION AUTHORIZATION DEFAULT; ALTER ROLE mallory SUPERUSER",
    "secret": "PERFORM word FROM public.secret",
    "the lease of pg_reaper": "UPDATE public.pg_reaper_lease SET leader = 'mallory'",
    "a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "temporary table": "CREATE TEMP TABLE pg_class (oid integer)",
}

SLEEP = "PERFORM pg_sleep(600);"
SWALLOW = "LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;"

# What keeps a stamp from being made, in minutes or at all.
HINDRANCES = {
    "a trigger that sleeps": [SLEEP],
    "a trigger that swallows the cancellation": [SWALLOW],
    "a trigger that raises": ["RAISE EXCEPTION 'no';"],
    "a trigger that drops the update": ["RETURN NULL;"],
    "a trigger that ends the worker": ["SET exit_on_error = on; RAISE EXCEPTION 'fatal';"],
    "a check that sleeps": f"ALTER TABLE {TABLE} ADD CONSTRAINT evil CHECK (hers.sleeps(leader))",
    "an index that sleeps": f"CREATE INDEX evil ON {TABLE} (hers.sleeps(leader), acquired_at)",
    "a rule": f"CREATE RULE evil AS ON UPDATE TO {TABLE} DO INSTEAD NOTHING",
    "a deferred trigger": f"CREATE CONSTRAINT TRIGGER evil AFTER UPDATE ON {TABLE} DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION hers.nothing()",
}


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Its worker is idle until it is enabled; her table is a lease like any other so far."""
    server = make_server({
        "pg_reaper.lease_table": TABLE, "pg_reaper.lease_duration": "3s", "pg_reaper.enabled": "off",
    })  # fmt: skip
    mallory.moves_in(server)
    server.execute(
        f"CREATE TABLE {TABLE} ({LEASE_COLUMNS})",
        f"INSERT INTO {TABLE} VALUES (1)",
        "CREATE FUNCTION hers.sleeps(leader text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN"
        " IF session_user <> 'mallory' THEN PERFORM pg_sleep(600); END IF; RETURN true; END $$",
        "CREATE FUNCTION hers.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        user="mallory",
    )
    return server


def hinder(server: Server, hindrance: str | list[str], when: str = "BEFORE UPDATE") -> None:
    if isinstance(hindrance, str):
        server.execute(hindrance, user="mallory")
        return
    server.execute(
        f"CREATE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS $evil$ BEGIN {hindrance[0]} RETURN NEW; END $evil$",
        f"CREATE TRIGGER evil {when} ON {TABLE} FOR EACH ROW EXECUTE FUNCTION hers.evil()",
        user="mallory",
    )


def enable(server: Server) -> None:
    server.set(**{"pg_reaper.enabled": "on"})


def assert_no_power(server: Server) -> None:
    assert server.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") is False
    assert lease(server).leader != "mallory"
    notes = mallory.diary(server)
    assert notes, "her code did not run"
    assert {who for _, who, _ in notes} == {"mallory"}
    assert all(note != "done" for note, _, _ in notes), notes


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
def test_her_triggers_have_no_power_but_hers_at_any_move(server: Server, deed: str) -> None:
    hinder(server, [mallory.tries(deed)], "BEFORE UPDATE")
    enable(server)
    wait_for(server, "leader")  # acquired
    renewed = len(mallory.diary(server)) + 2
    wait_until(lambda: len(mallory.diary(server)), lambda n: n >= renewed, "renewals")
    overdue(server, "due")
    wait_until_reaped(server, "due")
    server.set(**{"pg_reaper.enabled": "off"})
    wait_until(lambda: shared_lease(server, TABLE).leader, "".__eq__, "the release")
    assert_no_power(server)
    server.restart()
    assert_no_power(server)


def test_her_deferred_triggers_do_not_run_as_somebody_else_at_commit(server: Server) -> None:
    server.execute(
        "CREATE FUNCTION hers.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO hers.diary VALUES ('late', current_user, session_user); RETURN NULL; END $$",
        f"CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON {TABLE} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hers.late()",
        user="mallory",
    )
    enable(server)
    wait_until(lambda: status(server), lambda row: row.errors > 1 or row.state == "leader", "moves")
    assert {who for _, who, _ in mallory.diary(server)} <= {"mallory"}


@pytest.mark.parametrize("hindrance", HINDRANCES.values(), ids=HINDRANCES.keys())
def test_nothing_is_reaped_while_the_lease_cannot_be_taken_and_the_server_stops_promptly(
    server: Server, hindrance: str | list[str]
) -> None:
    overdue(server, "due")
    hinder(server, hindrance)
    enable(server)
    # Whether it lives through that or is ended and started afresh, it tries more than once.
    tried = server.log_mark()
    wait_until(
        lambda: len(log.warnings(server.log_since(tried))) + server.log_since(tried).count(" FATAL: "),
        lambda troubles: troubles >= 2,
        "two tries",
    )
    assert barriers(server) == {"due"}
    assert lease(server).term == 0, "it fell back on its own lease"
    server.stop("fast", AT_ONCE)


def test_a_function_that_ends_the_worker_is_named_as_one_of_the_lease_table(server: Server) -> None:
    hinder(server, HINDRANCES["a trigger that ends the worker"])
    enable(server)
    oid = server.value(f"SELECT '{TABLE}'::regclass::oid")
    said = f"a function of the lease table with OID {oid} ended the worker"
    wait_until(lambda: log.warnings(server.log(), said), bool, "the accusation")
    wait_until(lambda: status(server), lambda row: row and said in (row.last_error or ""), "it in the status")
    # No watched table is left alone for it.
    assert "leaves that table alone" not in server.log()


@pytest.mark.parametrize("hindrance", HINDRANCES.values(), ids=HINDRANCES.keys())
def test_nothing_is_reaped_while_the_lease_cannot_be_renewed_and_it_goes_on_when_it_can(
    server: Server, hindrance: str | list[str]
) -> None:
    reapings = watch_reaping(server, TABLE)
    server.execute(f"GRANT SELECT ON {TABLE} TO PUBLIC; GRANT USAGE ON SCHEMA hers TO PUBLIC", user="mallory")
    enable(server)
    wait_for(server, "leader")
    hinder(server, hindrance)
    wait_until(lambda: status(server), lambda row: row.state != "leader", "it to be in doubt")
    overdue(server, "due")
    mark = server.log_mark()
    wait_until(lambda: server.log_since(mark), lambda said: "WARNING" in said or "FATAL" in said, "one more try")
    assert barriers(server) == {"due"}
    server.execute(
        f"DROP TRIGGER IF EXISTS evil ON {TABLE}; DROP RULE IF EXISTS evil ON {TABLE};"
        f" ALTER TABLE {TABLE} DROP CONSTRAINT IF EXISTS evil; DROP INDEX IF EXISTS hers.evil",
        user="mallory",
    )
    server.set(**{"pg_reaper.batch_size": "99"})  # A reload tries at once what is put off.
    wait_until_reaped(server, "due")
    assert all(is_reapers(reaping.leader, reaping.pid) for reaping in reapings())


@pytest.mark.parametrize("mode", ["fast", "smart"])
@pytest.mark.parametrize("body", [SLEEP, SWALLOW], ids=["sleeps", "swallows"])
def test_a_release_that_she_holds_up_does_not_hold_up_the_shutdown(server: Server, body: str, mode: str) -> None:
    hinder(server, [f"IF NEW.leader = '' THEN {body} END IF;"])
    enable(server)
    wait_for(server, "leader")
    server.stop(mode, AT_ONCE)
    assert "could not release the lease" in server.log()
    server.start()
    assert is_reapers(shared_lease(server, TABLE).leader)


@pytest.mark.parametrize("body", [SLEEP, SWALLOW], ids=["sleeps", "swallows"])
def test_a_release_that_she_holds_up_does_not_keep_the_worker_from_leaving_her_table(server: Server, body: str) -> None:
    hinder(server, [f"IF NEW.leader = '' THEN {body} END IF;"])
    enable(server)
    wait_for(server, "leader")
    overdue(server, "due")
    server.set(**{"pg_reaper.lease_table": ""})
    wait_until(lambda: lease(server).term, lambda term: term > 0, "the lease of pg_reaper's own to be taken")
    wait_until_reaped(server, "due")


def test_the_log_says_whose_function_ended_the_worker(server: Server) -> None:
    hinder(server, [SWALLOW])
    enable(server)
    ended = wait_until(lambda: server.log(), lambda said: "exited with exit code" in said, "the worker to end")
    oid = server.value(f"SELECT '{TABLE}'::regclass::oid")
    assert [entry for entry in log.warnings(ended) if TABLE in entry.message or f"OID {oid} " in entry.message]


def test_row_security_of_hers_hides_nothing_from_its_own_owner(server: Server) -> None:
    server.execute(
        f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY evil ON {TABLE} USING (hers.sleeps(leader))",
        user="mallory",
    )
    enable(server)
    overdue(server, "due")
    wait_until_reaped(server, "due")
    assert wait_for(server, "leader").errors == 0
