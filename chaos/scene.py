"""The two databases: who competes for which lease, and the witnesses in them.

``alpha`` has the built-in lease and duplicate workers as rivals. ``beta`` shares its lease with
an outside reaper: by ``pg_reaper.lease_table`` where the product has that, else by the first
columns of the built-in row, which are the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness import Server, twins

from chaos.schedule import DATABASES, INTERVAL, LEASE_SECONDS
from chaos.tables import prepare_tables

CONFIG = {
    "pg_reaper.enabled": "on",
    "pg_reaper.interval": INTERVAL,
    "pg_reaper.lease_duration": f"{LEASE_SECONDS:g}s",
    # A burst of orphans takes many batches, so that faults fall between two of one pass as well.
    "pg_reaper.batch_size": "5",
    # Every reaped row has its line: one of the checker's witnesses.
    "pg_reaper.log_limit": "1000000",
    "track_commit_timestamp": "on",
    "wal_keep_size": "256MB",
    "max_wal_size": "256MB",
    # A replica must have as many.
    **twins.ROOM,
}

SHARED = "public.pg_orchestrator_lock"

# The extension and its witnesses come in one transaction: no worker acts unseen.
WITNESSES = """
BEGIN;
CREATE EXTENSION pg_reaper;
CREATE SCHEMA chaos;
CREATE TABLE {shared} (
  id integer PRIMARY KEY, leader text NOT NULL DEFAULT '', acquired_at timestamptz NOT NULL DEFAULT now());
INSERT INTO {shared} (id) VALUES (1);

CREATE SEQUENCE chaos.n;
CREATE TABLE chaos.op (
  op bigint PRIMARY KEY, barrier text NOT NULL, kind text NOT NULL, deadline timestamptz, remaining integer);
CREATE TABLE chaos.deletion (
  n bigint NOT NULL, barrier text NOT NULL, deadline timestamptz NOT NULL, remaining integer NOT NULL,
  at timestamptz NOT NULL, pid integer NOT NULL, who text NOT NULL, leader text, term bigint);
CREATE TABLE chaos.move (
  n bigint NOT NULL, leader text NOT NULL, term bigint, old_leader text NOT NULL, old_stamp timestamptz NOT NULL,
  at timestamptz NOT NULL, who text NOT NULL);

-- Now and then slow, so that faults meet a batch in the middle.
CREATE FUNCTION chaos.note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE who text := coalesce(current_setting('chaos.who', true), '');
BEGIN
  IF who = '' AND random() < 0.04 THEN PERFORM pg_sleep(0.1); END IF;
  INSERT INTO chaos.deletion
  SELECT nextval('chaos.n'), OLD.execution_id, OLD.expires_at, OLD.remaining, clock_timestamp(), pg_backend_pid(), who,
         lease.leader, {term}
  FROM {lease} AS lease;
  IF who = '' AND random() < 0.04 THEN PERFORM pg_sleep(0.1); END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER DELETE ON public.pg_barrier_state FOR EACH ROW EXECUTE FUNCTION chaos.note_deletion();

CREATE FUNCTION chaos.note_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos.move VALUES (nextval('chaos.n'), NEW.leader, {new_term}, OLD.leader, OLD.acquired_at,
    clock_timestamp(), coalesce(current_setting('chaos.who', true), ''));
  RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON {lease} FOR EACH ROW
WHEN ((OLD.leader, {old_term}) IS DISTINCT FROM (NEW.leader, {new_term})) EXECUTE FUNCTION chaos.note_move();

CREATE FUNCTION chaos.start_twin() RETURNS integer LANGUAGE c AS '{twin}', 'start_twin';
COMMIT;
"""


@dataclass(frozen=True)
class Scene:
    """One database of the play."""

    database: str
    lease: str
    has_term: bool
    outside: bool


def prepare(server: Server) -> list[Scene]:
    """Makes the databases that the product can serve, with their witnesses."""
    known = dict(server.query("SELECT name, reset_val FROM pg_settings WHERE name LIKE 'pg\\_reaper.%'"))
    names = DATABASES
    if known["pg_reaper.databases"] != "*":
        # A 0.1 serves one database.
        names = DATABASES[:1]
        server.configure({"pg_reaper.databases": names[0]})
    scenes = []
    for name in names:
        server.execute(f"CREATE DATABASE {name}")
        outside = name == names[-1]
        shared = outside and "pg_reaper.lease_table" in known
        if shared:
            server.execute(f"ALTER DATABASE {name} SET pg_reaper.lease_table = '{SHARED}'")
        scene = Scene(name, SHARED if shared else "public.pg_reaper_lease", not shared, outside)
        server.execute(_witnesses(scene), dbname=name)
        prepare_tables(server, name)
        scenes.append(scene)
    server.reload()
    return scenes


def _witnesses(scene: Scene) -> str:
    def term(row: str) -> str:
        return f"{row}.term" if scene.has_term else "NULL::bigint"

    return WITNESSES.format(
        shared=SHARED, lease=scene.lease, twin=twins.library(),
        term=term("lease"), new_term=term("NEW"), old_term=term("OLD"),
    )  # fmt: skip
