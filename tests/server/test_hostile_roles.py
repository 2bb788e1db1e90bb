"""Mallory's triggers reach for the power of whoever reaps her rows. None of them gets it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from scenery import log, mallory
from scenery.barriers import BY_HAND, count, status, until_empty
from scenery.mallory import SWEEPERS

@pytest.fixture
def hers(make_server: Callable[..., Server]) -> Server:
    """A server where Mallory's table is watched, and nobody sweeps yet."""
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    return server


# What she tries, and how it must end.
DEEDS = {
    "becoming who she was lent to": ("RESET ROLE", "42501"),
    "taking a superuser's role": ("SET ROLE postgres", "42501"),
    "taking no role at all": ("SET ROLE NONE", "42501"),
    "taking over the session": ("SET SESSION AUTHORIZATION postgres", "42501"),
    "putting the session back": ("RESET SESSION AUTHORIZATION", "42501"),
    "setting the role by function": ("PERFORM set_config('role', 'postgres', false)", "42501"),
    "putting every setting back": ("EXECUTE 'DISCARD ALL'", "25001 0A000 42501"),
    "making herself a superuser": ("ALTER ROLE mallory SUPERUSER", "42501"),
    "creating a superuser": ("CREATE ROLE eve SUPERUSER", "42501"),
    "reading what she may not": ("PERFORM * FROM public.secret", "42501"),
    "writing what she may not": ("UPDATE public.secret SET word = 'hers'", "42501"),
    "taking the lease": ("UPDATE public.pg_reaper_lease SET leader = 'mallory'", "42501"),
    "having others' tables watched": ("INSERT INTO public.pg_reaper_policy (relation) VALUES ('public.secret')", "42501"),
    "changing a setting of the reaper": ("PERFORM set_config('pg_reaper.batch_size', '1', false)", "42501"),
    "running a program": ("COPY hers.diary FROM PROGRAM 'echo pwned'", "42501"),
    "leaving a temporary table": ("CREATE TEMP TABLE trap (word text)", "42501"),
    "leaving a cursor": ("EXECUTE 'DECLARE trap CURSOR WITH HOLD FOR SELECT 1'", "42501"),
    "leaving a prepared statement": ("EXECUTE 'PREPARE trap AS SELECT 1'", "42501"),
    "listening": ("LISTEN trap", "42501"),
}


@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_no_deed_of_a_trigger_goes_beyond_its_owner(hers: Server, sweeper: Callable[[Server], None]) -> None:
    # One deed to a row: each is tried, and caught, in the same sweep.
    cases = " ".join(
        f"WHEN '{name.replace(chr(39), chr(39) * 2)}' THEN {deed};" for name, (deed, _) in DEEDS.items()
    )
    mallory.trigger(
        hers,
        declare="outcome text := 'done';",
        body=f"BEGIN CASE OLD.execution_id {cases} END CASE;"
        " EXCEPTION WHEN OTHERS THEN outcome := SQLSTATE; END;"
        " INSERT INTO hers.diary VALUES (OLD.execution_id || ': ' || outcome, current_user, session_user);",
    )
    mallory.orphan(hers, *DEEDS)
    sweeper(hers)
    until_empty(hers, mallory.TABLE)

    noted = mallory.diary(hers)
    assert len(noted) == len(DEEDS)
    for note, who, _ in noted:
        name, _, outcome = note.rpartition(": ")
        assert outcome in DEEDS[name][1].split(), note
        assert who == "mallory", note
    # Whoever lent it, it was a session that she wanted.
    assert {session for *_, session in noted} == {"postgres"}
    assert hers.value("SELECT word FROM secret") == "xyzzy"
    assert hers.value("SELECT array_agg(rolname::text) FROM pg_roles WHERE rolsuper") == ["postgres"]
    assert hers.value("SELECT leader FROM pg_reaper_lease") != "mallory"


@pytest.mark.parametrize("sweeper", SWEEPERS)
@pytest.mark.parametrize("deed", ["RESET ROLE", "SET SESSION AUTHORIZATION postgres", "CREATE TEMP TABLE trap ()"])
def test_a_deed_that_is_not_caught_fails_the_batch_and_is_reported(
    hers: Server, sweeper: Callable[[Server], None], deed: str
) -> None:
    mallory.trigger(hers, f"{deed};")
    mallory.orphan(hers)
    sweeper(hers)
    (failure, *_) = wait_until(lambda: log.failures(hers.log(), "hers.jobs"), bool, "the failure in the log")
    assert "security-restricted operation" in failure.message
    assert failure.detail.startswith("SQLSTATE 42501")
    assert failure.hint
    assert count(hers, mallory.TABLE) == 1


@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_what_a_trigger_left_set_is_gone_afterwards(hers: Server, sweeper: Callable[[Server], None]) -> None:
    # The second policy's trigger runs in the same session after hers, and sees what is left.
    mallory.trigger(
        hers,
        "SET search_path = hers; SET statement_timeout = '7ms'; SET lock_timeout = '7ms';"
        " SET default_transaction_read_only = on; SET DateStyle = 'German'; SET \"hers.own\" = 'trap';",
    )
    settings = "search_path statement_timeout lock_timeout default_transaction_read_only DateStyle hers.own".split()
    notes = ", ".join(f"current_setting('{name}', true)" for name in settings)
    hers.execute(
        "CREATE TABLE watched (LIKE pg_barrier_state INCLUDING DEFAULTS)",
        "SELECT pg_reaper_adopt('watched')",
        "CREATE TABLE seen (settings text[])",
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO public.seen VALUES (ARRAY[{notes}]); RETURN OLD; END $$",
        "CREATE TRIGGER look BEFORE DELETE ON watched FOR EACH ROW EXECUTE FUNCTION look()",
        "INSERT INTO watched (execution_id, remaining, expires_at) VALUES ('x', 1, now())",
    )
    mallory.orphan(hers)
    sweeper(hers)
    hers.execute("SELECT pg_reaper_sweep('watched')")
    until_empty(hers, mallory.TABLE)
    until_empty(hers, "watched")
    for (seen,) in hers.query("SELECT settings FROM seen"):
        assert seen[0] == "pg_catalog, pg_temp"
        assert seen[1] == "0"
        assert seen[2] != "7ms"
        assert seen[3:5] == ["off", "ISO"] or seen[3:5] == ["off", "ISO, MDY"]
        assert not seen[5]


@pytest.mark.parametrize("sweeper", [mallory.by_superuser, mallory.by_superuser_as_mallory])
def test_the_callers_own_session_is_as_it_was(hers: Server, sweeper: Callable[[Server], None]) -> None:
    mallory.trigger(hers, "SET search_path = hers; SET statement_timeout = '7ms'; SET work_mem = '64kB';")
    mallory.orphan(hers)
    query = (
        "SELECT current_user, session_user, current_setting('search_path'), current_setting('work_mem'),"
        " current_setting('statement_timeout'), current_setting('lock_timeout')"
    )
    with hers.connect() as session:
        if sweeper is mallory.by_superuser_as_mallory:
            session.execute("SET ROLE mallory")
        before = session.execute(query).fetchone()
        assert session.execute("SELECT pg_reaper_sweep()").fetchone() == (1,)
        assert session.execute(query).fetchone() == before


def test_a_trigger_cannot_unlock_the_leadership(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.leadership": "advisory"})
    mallory.moves_in(server)
    mallory.trigger(server, mallory.tries("PERFORM pg_advisory_unlock_all()"))
    held = (
        "SELECT pid FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_extension'::regclass"
        " AND mode = 'ExclusiveLock' AND granted"
    )
    worker = wait_until(lambda: server.value(held), bool, "the leadership lock")
    mallory.orphan(server)
    until_empty(server, mallory.TABLE)
    assert [note for note, *_ in mallory.diary(server)] == ["done"]
    assert server.value(held) == worker == status(server)["pid"]
    assert "another worker holds" not in server.log()
    assert status(server)["state"] == "leader"
