"""The filter of a policy: one immutable condition over the table's own columns, and no way out."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from scenery import log
from scenery.barriers import BY_HAND
from scenery.policies import COLUMNS, add, alter, go, rows, shown, suspended, sweep, until_rows, watched, write


@pytest.fixture
def by_hand(make_server: Callable[..., Server]) -> Server:
    """A server whose worker sweeps nothing, and a table that nothing watches yet."""
    server = make_server(BY_HAND)
    server.execute(f"CREATE TABLE jobs ({COLUMNS})", "CREATE INDEX ON jobs (due)")
    return server


def kept(server: Server, policy: int) -> str:
    """The filter as it is kept."""
    return server.value("SELECT filter FROM pg_reaper_policies WHERE policy = %s", [policy])


def test_only_rows_that_meet_the_filter_are_reaped(server: Server) -> None:
    watched(server, "jobs", filter="state = 'done' OR state IS NULL")
    write(server, "jobs", "done", state="done")
    write(server, "jobs", "open")
    server.execute("INSERT INTO jobs VALUES ('null', now(), NULL), ('later', now() + interval '1 h', 'done')")
    until_rows(server, "jobs", "later", "open")
    # A row that comes to meet it after its deadline goes, too.
    server.execute("UPDATE jobs SET state = 'done' WHERE id = 'open'")
    until_rows(server, "jobs", "later")


def test_a_row_for_which_the_filter_is_null_stays(by_hand: Server) -> None:
    policy = add(by_hand, "jobs", filter="state <> 'x'")
    by_hand.execute("INSERT INTO jobs VALUES ('null', now(), NULL), ('y', now(), 'y')")
    assert (shown(by_hand, policy), sweep(by_hand, policy)) == (["y"], 1)
    assert rows(by_hand, "jobs") == ["null"]


@pytest.mark.parametrize(
    "filter",
    [
        "true) OR (SELECT count(*) FROM pg_class) > 0 OR (true",
        "true), (SELECT true",
        "true) FROM pg_class WHERE (true",
        "true) UNION SELECT (true",
        "true); DELETE FROM jobs; SELECT (true",
        "true) INTO stolen FROM (VALUES (1",
        "true) LIMIT (1",
        "true) ORDER BY (true",
        "true) AS x --",
        "true) FOR UPDATE --",
        "EXISTS (SELECT FROM pg_class)",
        "id IN (SELECT relname FROM pg_class)",
        "count(*) > 0",
        "row_number() OVER () > 0",
        "generate_series(1, 2) > 0",
        "$1",
        "now() > due",
        "due < 'now'::text::timestamptz",
        "random() > 0.5",
        "current_user = 'x'",
        "nothing = 1",
        "other.id = 'x'",
        "ctid = '(0,1)'",
        "tableoid = 1",
        "xmin = '1'",
        "jobs IS NOT NULL",
        "jobs.* IS NOT NULL",
        "1",
        "id",
        "",
        "  ",
        "--",
        "/*",
        "true)",
        "'",
        "DEFAULT",
        "*",
        "id = 'x' COLLATE nowhere",
    ],
)
def test_what_does_not_qualify_is_refused_and_leaves_nothing(by_hand: Server, filter: str) -> None:
    write(by_hand, "jobs", "a")
    with pytest.raises(psycopg.Error) as refused:
        add(by_hand, "jobs", filter=filter)
    assert refused.value.sqlstate and not refused.value.sqlstate.startswith("XX"), refused.value
    assert refused.value.diag.message_hint
    assert by_hand.value("SELECT count(*) FROM pg_reaper_policy") == 1
    policy = add(by_hand, "jobs", filter="state = 'x'")
    with pytest.raises(psycopg.Error):
        alter(by_hand, policy, filter=filter)
    assert kept(by_hand, policy) == "(state = 'x'::text)"
    assert rows(by_hand, "jobs") == ["a"]


def test_names_are_looked_up_by_the_path_of_who_writes_them_and_kept_qualified(by_hand: Server) -> None:
    by_hand.execute(
        "CREATE SCHEMA app",
        "CREATE TYPE app.mood AS ENUM ('sad', 'glad')",
        "CREATE FUNCTION app.over(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done'",
        "CREATE FUNCTION app.same(text, text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN $1 OPERATOR(pg_catalog.=) $2; END $$",
        "CREATE OPERATOR app.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = app.same)",
        "ALTER TABLE jobs ADD mood app.mood DEFAULT 'sad'",
    )
    with by_hand.connect() as session:
        session.execute("SET search_path = app, public")
        (policy,) = session.execute(
            "SELECT pg_reaper_add_policy('jobs', 'due', filter => $$over(state) AND state === 'done' AND mood = 'sad'$$)"
        ).fetchone()  # type: ignore[misc]
    text = kept(by_hand, policy)
    assert "app.over(state)" in text
    assert "OPERATOR(app.===)" in text
    assert "'sad'::app.mood" in text
    with pytest.raises(psycopg.errors.UndefinedFunction):
        add(by_hand, "jobs", filter="over(state)")
    write(by_hand, "jobs", "done", state="done")
    write(by_hand, "jobs", "open")
    assert shown(by_hand, policy) == ["done"]
    assert sweep(by_hand, policy) == 1
    # What is not written again is not looked up again.
    alter(by_hand, policy, ttl="1 day")
    assert kept(by_hand, policy) == text
    assert suspended(by_hand, policy) is None


def test_constants_mean_what_they_meant_to_who_wrote_them(by_hand: Server) -> None:
    by_hand.execute("ALTER TABLE jobs ADD born date, ADD paid float8, ADD raw bytea, ADD took interval")
    with by_hand.connect() as session:
        session.execute("SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = -10")
        session.execute("SET bytea_output = 'escape'")
        (policy,) = session.execute(
            "SELECT pg_reaper_add_policy('jobs', 'due', filter => $$born < '02/03/2020' AND paid = 0.1234567890123456"
            r" AND raw = '\x5c00' AND took = '-1 2:03:04'$$)"
        ).fetchone()  # type: ignore[misc]
    by_hand.execute(
        "INSERT INTO jobs (id, due, born, paid, raw, took)"
        r" SELECT born, now(), born, 0.1234567890123456, '\x5c00', '-1 day -2:03:04'"
        " FROM unnest(ARRAY['2020-02-28', '2020-03-01', '2020-03-02', '2020-02-04']::date[]) AS born"
    )
    expected = ["2020-02-04", "2020-02-28", "2020-03-01"]
    assert "2020-03-02" in kept(by_hand, policy)
    for settings in ("datestyle = 'ISO, MDY'", "datestyle = 'German'", "intervalstyle = 'sql_standard'"):
        with by_hand.connect() as session:
            session.execute(f"SET {settings}")
            found = session.execute("SELECT row_data ->> 'id' FROM pg_reaper_preview(%s)", [policy]).fetchall()
            assert sorted(name for (name,) in found) == expected, settings
    assert sweep(by_hand, policy) == 3


@pytest.mark.parametrize("strings", ["on", "off"])
def test_a_backslash_and_a_null_mean_what_they_meant_whatever_a_session_takes_them_for(
    by_hand: Server, strings: str
) -> None:
    with by_hand.connect() as session:
        session.execute(f"SET standard_conforming_strings = {strings}; SET escape_string_warning = off")
        (policy,) = session.execute(
            r"SELECT pg_reaper_add_policy('jobs', 'due', filter => $$id <> E'keep\\me'"
            " AND ARRAY[state] IS DISTINCT FROM '{NULL}'$$)"
        ).fetchone()  # type: ignore[misc]
    by_hand.execute(r"INSERT INTO jobs VALUES (E'keep\\me', now(), 'open'), ('too', now(), NULL), ('dead', now(), 'open')")
    for setting in ("standard_conforming_strings", "array_nulls"):
        by_hand.execute(f"ALTER DATABASE postgres SET {setting} = off")
    # Read again, and spelt out again.
    alter(by_hand, policy, batch_size=10)
    assert shown(by_hand, policy) == ["dead"]
    assert suspended(by_hand, policy) is None
    go(by_hand)
    until_rows(by_hand, "jobs", "keep\\me", "too")
    # With the statements planned anew, too.
    by_hand.execute("ALTER TABLE jobs ADD more text")
    write(by_hand, "jobs", "dead")
    until_rows(by_hand, "jobs", "keep\\me", "too")
    assert sweep(by_hand, policy) == 0


def test_a_hostile_operator_in_the_path_gets_no_power(by_hand: Server) -> None:
    # Whoever can make an operator in a schema on the path of an administrator decides what the
    # filter means; what it does is done with the rights of the table's owner.
    by_hand.execute(
        "CREATE ROLE owner", "CREATE ROLE mallory", "GRANT owner TO mallory",
        "CREATE SCHEMA hers AUTHORIZATION mallory", "GRANT ALL ON SCHEMA hers TO PUBLIC",
        "CREATE TABLE hers.diary (who text)", "GRANT ALL ON hers.diary TO PUBLIC",
        "ALTER TABLE jobs OWNER TO owner",
        # What is not volatile may not write, but may call what does.
        "CREATE FUNCTION hers.does() RETURNS void LANGUAGE sql AS 'INSERT INTO hers.diary VALUES (current_user)'",
        "CREATE FUNCTION hers.eq(text, varchar) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM hers.does(); RETURN $1 OPERATOR(pg_catalog.=) $2::text; END $$",
        "CREATE OPERATOR hers.= (LEFTARG = text, RIGHTARG = varchar, FUNCTION = hers.eq)",
    )  # fmt: skip
    with by_hand.connect() as session:
        session.execute("SET search_path = hers, public, pg_catalog")
        session.execute("SELECT pg_reaper_add_policy('jobs', 'due', filter => 'state = ''done''::varchar')")
    write(by_hand, "jobs", "done", state="done")
    by_hand.execute("SELECT pg_reaper_sweep()")
    assert {who for (who,) in by_hand.query("SELECT who FROM hers.diary")} == {"owner"}


def test_a_filter_on_a_column_that_is_renamed_is_suspended_and_heals(server: Server) -> None:
    policy = watched(server, "jobs", filter="state = 'done'")
    other = watched(server, "others")
    server.execute("ALTER TABLE jobs RENAME state TO condition")
    assert 'column "state" does not exist' in (suspended(server, policy) or "")
    server.execute("INSERT INTO jobs VALUES ('dead', now() - interval '1 s', 'done')")
    write(server, "others", "dead")
    until_rows(server, "others")
    wait_until(lambda: log.failures(server.log(), "public.jobs"), bool, "the report")
    assert rows(server, "jobs") == ["dead"]
    assert suspended(server, other) is None
    alter(server, policy, filter="condition = 'done'")
    assert suspended(server, policy) is None
    until_rows(server, "jobs")


@pytest.mark.parametrize("index", ["an index", "none"])
def test_a_filter_on_a_dropped_column_does_not_come_to_mean_the_row(server: Server, index: str) -> None:
    server.execute("CREATE TABLE state (id text, due timestamptz, state text)")
    if index == "an index":
        server.execute("CREATE INDEX ON state (due)")
    policy = add(server, "state", filter="state IS NOT NULL")
    server.execute("INSERT INTO state VALUES ('kept', now(), NULL), ('dead', now(), 'open')")
    until_rows(server, "state", "kept")
    server.execute("ALTER TABLE state DROP state")
    wait_until(lambda: log.failures(server.log(), "public.state"), bool, "the report")
    assert rows(server, "state") == ["kept"]
    assert 'column "state" does not exist' in (suspended(server, policy) or "")


def test_a_filter_whose_function_is_dropped_or_raises_hurts_nobody_else(server: Server) -> None:
    server.execute("CREATE FUNCTION is_done(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done'")
    policy = watched(server, "jobs", filter="is_done(state)")
    watched(server, "others")
    server.execute("DROP FUNCTION is_done")
    assert "is_done(text) does not exist" in (suspended(server, policy) or "")
    write(server, "jobs", "dead", state="done")
    write(server, "others", "dead")
    until_rows(server, "others")
    wait_until(lambda: log.failures(server.log(), "public.jobs"), bool, "the report")
    server.execute(
        "CREATE FUNCTION is_done(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
    )
    # It is another function.
    alter(server, policy, filter="is_done(state)")
    write(server, "others", "dead again")
    until_rows(server, "others")
    server.execute("CREATE OR REPLACE FUNCTION is_done(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done'")
    until_rows(server, "jobs")


def test_a_filter_whose_function_is_no_longer_immutable_is_not_swept(server: Server) -> None:
    server.execute("CREATE FUNCTION is_done(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$")
    policy = watched(server, "jobs", filter="is_done(state)")
    assert suspended(server, policy) is None
    server.execute("ALTER FUNCTION is_done VOLATILE")
    write(server, "jobs", "dead")
    # What is said of a policy is what is so.
    if suspended(server, policy) is None:
        until_rows(server, "jobs")
    else:
        wait_until(lambda: log.failures(server.log(), "public.jobs"), bool, "the report")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_names_and_constants_in_another_encoding_are_kept(make_server: Callable[..., Server], encoding: str) -> None:
    server = make_server(BY_HAND)
    word = {"LATIN1": "größe", "EUC_JP": "表ソ日本", "SQL_ASCII": "größe"}[encoding]
    client = "UTF8" if encoding == "SQL_ASCII" else encoding
    server.execute(f"CREATE DATABASE tongue ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    with server.connect("tongue", client_encoding=client) as session:
        session.execute("CREATE EXTENSION pg_reaper")
        session.execute(f'CREATE TABLE "{word}" (id text, "due {word}" timestamptz, "{word}" text)')
        session.execute(f'CREATE INDEX ON "{word}" ("due {word}")')
        session.execute(f"INSERT INTO \"{word}\" VALUES ('dead', now(), '{word}'), ('alive', now(), 'x')")
        (policy,) = session.execute(
            f"""SELECT pg_reaper_add_policy('"{word}"', 'due {word}', filter => $$"{word}" = '{word}'$$, name => '{word}')"""
        ).fetchone()  # type: ignore[misc]
        assert session.execute("SELECT tid, row_data IS NOT NULL FROM pg_reaper_preview(%s)", [policy]).fetchall() == [("(0,1)", True)]
        assert session.execute("SELECT suspended FROM pg_reaper_policies WHERE policy = %s", [policy]).fetchall() == [(None,)]
        assert session.execute("SELECT pg_reaper_sweep(policy => %s)", [policy]).fetchone() == (1,)
        assert session.execute(f'SELECT id FROM "{word}"').fetchall() == [("alive",)]
