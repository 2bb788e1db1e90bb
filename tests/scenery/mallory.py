"""Mallory owns an adopted table, writes its triggers, and means harm.

Whatever her trigger does it writes into her diary, together with who it ran as. A diary
that was rolled back with the batch tells nothing, so what must be seen after an error is
caught inside the trigger.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from harness import Server
from scenery.barriers import COLUMNS, arm

TABLE = "hers.jobs"


def moves_in(server: Server) -> None:
    """Creates her role, schema and diary, a secret that is not hers, and has her table adopted."""
    server.execute(
        "CREATE ROLE mallory LOGIN",
        "CREATE SCHEMA hers AUTHORIZATION mallory",
        "CREATE TABLE secret (word text)",
        "INSERT INTO secret VALUES ('xyzzy')",
        "REVOKE ALL ON secret FROM PUBLIC",
        # She may sweep by hand too.
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep, pg_reaper_adopt, pg_reaper_disown TO mallory",
    )
    server.execute(
        "CREATE TABLE hers.diary (note text, who text, session text)",
        f"CREATE TABLE {TABLE} ({COLUMNS})",
        f"CREATE INDEX ON {TABLE} (expires_at)",
        f"SELECT pg_reaper_adopt('{TABLE}')",
        user="mallory",
    )


def trigger(server: Server, body: str, when: str = "BEFORE DELETE", declare: str = "", table: str = TABLE) -> None:
    """Hers is a row trigger with this body, in PL/pgSQL."""
    result = "RETURN OLD;" if when.startswith("BEFORE") else "RETURN NULL;"
    server.execute(
        f"CREATE OR REPLACE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS $evil$"
        f" DECLARE {declare} BEGIN {body} {result} END $evil$",
        f"CREATE TRIGGER evil {when} ON {table} FOR EACH ROW EXECUTE FUNCTION hers.evil()",
        user="mallory",
    )


def tries(deed: str) -> str:
    """A body that tries a deed, and notes what came of it and who it ran as."""
    return (
        "DECLARE outcome text; BEGIN"
        f" BEGIN {deed}; outcome := 'done';"
        " EXCEPTION WHEN OTHERS THEN outcome := SQLSTATE || ' ' || SQLERRM; END;"
        " INSERT INTO hers.diary VALUES (outcome, current_user, session_user); END;"
    )


def diary(server: Server) -> list[tuple[str, str, str]]:
    """What her triggers noted: the outcome, the current user and the session's."""
    return server.query("SELECT note, who, session FROM hers.diary")


def by_worker(server: Server) -> None:
    """Leaves her orphan to the worker."""
    server.set(**{"pg_reaper.enabled": "on"})


def by_superuser(server: Server) -> None:
    """A superuser sweeps by hand."""
    server.execute("SELECT pg_reaper_sweep()")


def by_superuser_as_mallory(server: Server) -> None:
    """A superuser who believes that SET ROLE makes it safe sweeps by hand."""
    with psycopg.connect(**server.address(), autocommit=True) as session:
        session.execute("SET ROLE mallory")
        session.execute("SELECT pg_reaper_sweep()")


# Everybody who deletes her rows and has something that she wants.
SWEEPERS: list[Callable[[Server], None]] = [by_worker, by_superuser, by_superuser_as_mallory]


def orphan(server: Server, *names: str) -> None:
    """Leaves orphans in her table."""
    arm(server, *(names or ("bait",)), table=TABLE)
