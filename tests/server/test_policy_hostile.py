"""Filters of hostile owners: they have the rights of the owner, and the time of one statement."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import wait_for
from scenery import log
from scenery.barriers import BY_HAND, count
from scenery.policies import COLUMNS, add, alter, shown, suspended, sweep, until_rows, watched, write

REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def by_hand(make_server: Callable[..., Server]) -> Server:
    """A server whose worker sweeps nothing, where Alice has a table."""
    server = make_server(BY_HAND)
    server.execute(
        "CREATE ROLE alice LOGIN", "CREATE ROLE bob LOGIN",
        "GRANT EXECUTE ON FUNCTION pg_reaper_add_policy, pg_reaper_sweep TO alice, bob",
        "CREATE SCHEMA hers AUTHORIZATION alice", "GRANT USAGE ON SCHEMA hers TO PUBLIC",
    )  # fmt: skip
    server.execute(f"CREATE TABLE hers.jobs ({COLUMNS})", "CREATE INDEX ON hers.jobs (due)", user="alice")
    return server


def evil(server: Server, body: str) -> None:
    """A function of Alice's that says it is immutable and is not: it may not write, but may call what does."""
    server.execute(
        f"CREATE OR REPLACE FUNCTION hers.does() RETURNS void LANGUAGE plpgsql AS $evil$ BEGIN {body} END $evil$",
        "CREATE OR REPLACE FUNCTION hers.evil(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM hers.does(); RETURN true; END $$",
        user="alice",
    )


DEEDS = {
    "INSERT INTO public.loot SELECT word FROM public.secret": "42501",
    "CREATE TEMP TABLE scratch ()": "42501",
    "SET ROLE postgres": "42501",
    "RESET ROLE": "42501",
    "RESET SESSION AUTHORIZATION": "42501",
    "PERFORM set_config('role', 'postgres', false)": "42501",
    "ALTER ROLE alice SUPERUSER": "42501",
    "PERFORM pg_reload_conf()": "42501",
    "DELETE FROM public.pg_reaper_policy": "42501",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_filter_has_the_rights_of_the_owner_and_no_more(by_hand: Server, deed: str) -> None:
    by_hand.execute("CREATE TABLE secret (word text)", "CREATE TABLE loot (word text)", "GRANT INSERT ON loot TO alice")
    by_hand.execute("CREATE TABLE hers.diary (outcome text, who text)", user="alice")
    evil(by_hand, "")
    policy = add(by_hand, "hers.jobs", filter="hers.evil(state)", user="alice")
    evil(
        by_hand,
        f"DECLARE outcome text := 'done'; BEGIN BEGIN {deed}; EXCEPTION WHEN OTHERS THEN outcome := SQLSTATE; END;"
        " INSERT INTO hers.diary VALUES (outcome, current_user); END;",
    )
    write(by_hand, "hers.jobs", "dead")

    def noted() -> set[tuple[str, str]]:
        found = set(by_hand.query("SELECT outcome, who FROM hers.diary"))
        by_hand.execute("DELETE FROM hers.diary")
        return found

    only = {(DEEDS[deed], "alice")}
    shown(by_hand, policy)
    assert noted() == only, "by a preview"
    by_hand.execute("SELECT pg_reaper_sweep()")
    assert noted() == only, "by a sweep"
    write(by_hand, "hers.jobs", "dead")
    by_hand.set(**{"pg_reaper.enabled": "on"})
    until_rows(by_hand, "hers.jobs")
    assert noted() == only, "by the worker"


def test_a_filter_that_is_run_when_a_statement_is_planned_has_no_more_rights_either(by_hand: Server) -> None:
    # Constants are folded as soon as it is analysed, by whoever looks: here a superuser.
    by_hand.execute("CREATE TABLE hers.diary (who text)", user="alice")
    evil(by_hand, "INSERT INTO hers.diary VALUES (current_user);")
    policy = add(by_hand, "hers.jobs", filter="hers.evil('x') AND state = 'done'")
    suspended(by_hand, policy)
    shown(by_hand, policy)
    alter(by_hand, policy, ttl="1 h")
    assert {who for (who,) in by_hand.query("SELECT who FROM hers.diary")} == {"alice"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("RAISE 'no';", "goes into quarantine: no"),
        ("LOOP PERFORM pg_sleep(0.01); END LOOP;", None),
        (
            "LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;",
            "swallowed the cancellation",
        ),
    ],
)
def test_a_filter_that_misbehaves_hurts_nobody_else(server: Server, body: str, said: str | None) -> None:
    server.execute("CREATE ROLE alice LOGIN", "CREATE SCHEMA hers AUTHORIZATION alice", "GRANT USAGE ON SCHEMA hers TO PUBLIC")
    server.execute(f"CREATE TABLE hers.jobs ({COLUMNS})", "CREATE INDEX ON hers.jobs (due)", user="alice")
    evil(server, "")
    add(server, "hers.jobs", filter="hers.evil(state)")
    watched(server, "others")
    evil(server, body)
    write(server, "hers.jobs", "dead", due="300 ms")
    if said:
        wait_until(lambda: log.warnings(server.log(), said), bool, "the report")
    else:
        (failure, *_) = wait_until(lambda: log.failures(server.log(), "hers.jobs"), bool, "the report")
        assert failure.detail.startswith("SQLSTATE 57014")
    for n in range(3):
        write(server, "others", f"dead {n}")
        until_rows(server, "others")
    assert count(server, "hers.jobs") == 1
    evil(server, "")
    until_rows(server, "hers.jobs")
    wait_for(server, "leader")


def test_who_looks_at_the_policies_can_cancel_that(by_hand: Server) -> None:
    evil(by_hand, "")
    policy = add(by_hand, "hers.jobs", filter="hers.evil('x') AND state = 'done'")
    evil(by_hand, "PERFORM pg_sleep(60);")
    write(by_hand, "hers.jobs", "dead")
    with by_hand.connect() as session:
        session.execute("SET statement_timeout = '300ms'")
        # Nothing of it is run just to see whether it still stands.
        assert session.execute("SELECT suspended FROM pg_reaper_policies WHERE policy = %s", [policy]).fetchone() == (None,)
        for statement in (
            f"SELECT * FROM pg_reaper_preview({policy})",
            "SELECT * FROM pg_reaper_preview()",
            "SELECT pg_reaper_sweep()",
            "SELECT pg_reaper_add_policy('hers.jobs', 'due', filter => $$hers.evil('x')$$)",
        ):
            with pytest.raises(psycopg.errors.QueryCanceled):
                session.execute(statement)


def test_a_table_given_to_another_owner_is_swept_as_that_one(by_hand: Server) -> None:
    by_hand.execute("CREATE TABLE diary (who text)", "GRANT INSERT ON diary TO PUBLIC")
    evil(by_hand, "INSERT INTO public.diary VALUES (current_user);")
    policy = add(by_hand, "hers.jobs", filter="hers.evil(state)")
    by_hand.execute("ALTER TABLE hers.jobs OWNER TO bob", "GRANT CREATE, USAGE ON SCHEMA hers TO bob", "TRUNCATE diary")
    write(by_hand, "hers.jobs", "dead")
    assert sweep(by_hand, policy, user="bob") == 1
    assert {who for (who,) in by_hand.query("SELECT who FROM diary")} == {"bob"}
    with pytest.raises(REFUSED):
        sweep(by_hand, policy, user="alice")
