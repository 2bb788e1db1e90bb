"""The tables that policies watch, beside the barriers, and the witnesses of what becomes of their rows.

Each has rows that cannot be deleted for a while: a trigger raises an error, or a row of another
table refers to them by a key without ``CASCADE``.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness import Server

NOTES = """
CREATE TABLE public.job_note (job text NOT NULL REFERENCES public.jobs, until timestamptz NOT NULL);
CREATE INDEX ON public.job_note (job);
"""
# Whoever comes first mends all that is to be mended by then.
MEND = "DELETE FROM public.job_note WHERE until < clock_timestamp()"

JOURNAL = """
CREATE TABLE chaos.row_op (
  op bigint PRIMARY KEY, relation text NOT NULL, id text NOT NULL, kind text NOT NULL,
  deadline timestamptz NOT NULL, state text NOT NULL, meets boolean NOT NULL, bad boolean NOT NULL);
CREATE TABLE chaos.reaping (
  n bigint NOT NULL, relation text NOT NULL, id text NOT NULL, deadline timestamptz NOT NULL, state text NOT NULL,
  meets boolean NOT NULL, at timestamptz NOT NULL, pid integer NOT NULL);
CREATE TABLE chaos.put (id text NOT NULL);
CREATE FUNCTION chaos.note_put() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos.put SELECT NEW.key->>'id' WHERE NEW.key ? 'id';
  RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON public.pg_reaper_quarantine
FOR EACH ROW EXECUTE FUNCTION chaos.note_put();
"""

# A row that a client moves to another partition is deleted in the first one: that is not reaping.
WITNESS = """
CREATE FUNCTION chaos.note_reaping_of_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF random() < 0.02 THEN PERFORM pg_sleep(0.1); END IF;
  INSERT INTO chaos.reaping VALUES (nextval('chaos.n'), '{name}', OLD.id, {old_deadline}, OLD.state, {old_meets},
    clock_timestamp(), pg_backend_pid());
  RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER DELETE ON public.{name} FOR EACH ROW
WHEN (coalesce(current_setting('chaos.who', true), '') <> 'client')
EXECUTE FUNCTION chaos.note_reaping_of_{name}();
"""

REFUSAL = """
CREATE FUNCTION chaos.refuse_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.bad_until > clock_timestamp() AND coalesce(current_setting('chaos.who', true), '') <> 'client' THEN
    RAISE '% is to stay until %', OLD.id, OLD.bad_until;
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER refuse BEFORE DELETE ON public.{name} FOR EACH ROW EXECUTE FUNCTION chaos.refuse_{name}();
"""

INSERT = """
WITH born AS (
  INSERT INTO public.{name} (id, {column}, bad_until{more_columns})
  SELECT id, statement_timestamp() + make_interval(secs => %(seconds)s) - {ttl},
         CASE WHEN bad THEN statement_timestamp() + make_interval(secs => %(bad_seconds)s) END{more_values}
  FROM unnest(%(ids)s::text[], %(bad)s::boolean[]) AS u (id, bad)
  RETURNING {returning}){noted}
INSERT INTO chaos.row_op
SELECT op, '{name}', id, 'insert', deadline, state, meets, bad
FROM unnest(%(ops)s::bigint[], %(ids)s::text[]) AS u (op, id) JOIN born USING (id)"""

CHANGE = """
WITH changed AS ({statement} RETURNING {returning})
INSERT INTO chaos.row_op
SELECT %(op)s, '{name}', id, %(kind)s, deadline, state, meets, bad FROM changed
RETURNING 1"""


@dataclass(frozen=True)
class Table:
    """One watched table, and the statements of its clients."""

    name: str
    ddl: str
    column: str = "expires_at"
    # What pg_reaper_add_policy() is told besides.
    options: str = ""
    ttl: str = "interval '0'"
    meets: str = "true"
    # A column that says where the row belongs, anew with each renewal.
    shard: bool = False
    # Bad rows are such that others refer to.
    referenced: bool = False
    # Clients commit within a moment of the deadline, while a sweep waits for their row. Elsewhere some
    # keep a row locked for longer than a sweep waits, which makes the sweeps after it pass over locks.
    brink: bool = False

    def deadline(self, row: str = "") -> str:
        """The deadline of a row."""
        return f"{row}{self.column} + {self.ttl}"

    @property
    def insert(self) -> str:
        """Makes rows, all with one deadline."""
        noted = ", noted AS (INSERT INTO public.job_note SELECT id, bad_until FROM born WHERE bad)"
        return INSERT.format(
            name=self.name, column=self.column, ttl=self.ttl, returning=self._returning + ", bad_until",
            more_columns=", shard" if self.shard else "", more_values=f", {SHARD}" if self.shard else "",
            noted=noted if self.referenced else "",
        )  # fmt: skip

    @property
    def look(self) -> str:
        """Reads the deadline of one row."""
        return f"SELECT {self.deadline()} FROM public.{self.name} WHERE id = %s"

    def change(self, kind: str) -> str:
        """Changes one row, and says so in the journal, if it is there."""
        moved = f", shard = {SHARD}" if self.shard else ""
        statement = {
            "renew": f"UPDATE public.{self.name} SET {self.column} = clock_timestamp()"
            f" + make_interval(secs => %(seconds)s) - {self.ttl}{moved} WHERE id = %(id)s",
            "hold": f"UPDATE public.{self.name} SET state = 'held' WHERE id = %(id)s",
            "free": f"UPDATE public.{self.name} SET state = 'open' WHERE id = %(id)s",
            "complete": f"DELETE FROM public.{self.name} WHERE id = %(id)s",
        }[kind]
        return CHANGE.format(statement=statement, name=self.name, returning=self._returning)

    @property
    def _returning(self) -> str:
        return f"id, {self.deadline()} AS deadline, state, {self.meets} AS meets, bad_until IS NOT NULL AS bad"

    @property
    def setup(self) -> list[str]:
        """The table with its witnesses, and then its policy."""
        old_meets = self.meets.replace("state", "OLD.state")
        witness = WITNESS.format(name=self.name, old_deadline=self.deadline("OLD."), old_meets=old_meets)
        refusal = NOTES if self.referenced else REFUSAL.format(name=self.name)
        index = f"CREATE INDEX ON public.{self.name} ({self.column});"
        policy = f"SELECT pg_reaper_add_policy('public.{self.name}', '{self.column}'{self.options})"
        return [self.ddl + index + witness + refusal, policy]


SHARD = "floor(random() * 100)::integer"
COLUMNS = "state text NOT NULL DEFAULT 'open', bad_until timestamptz"

TABLES = (
    Table(
        "sessions",
        f"CREATE TABLE public.sessions (id text PRIMARY KEY, expires_at timestamptz NOT NULL, {COLUMNS});",
        brink=True,
    ),
    Table(
        "jobs",
        f"CREATE TABLE public.jobs (id text PRIMARY KEY, last_seen timestamptz NOT NULL, {COLUMNS});",
        column="last_seen",
        options=", ttl => '1 second', filter => $$state <> 'held'$$, rate_limit => 50",
        ttl="interval '1 second'",
        meets="state <> 'held'",
        referenced=True,
    ),
    Table(
        "tokens",
        f"""
CREATE TABLE public.tokens (
  id text NOT NULL, shard integer NOT NULL, expires_at timestamptz NOT NULL, {COLUMNS}, PRIMARY KEY (id, shard)
) PARTITION BY RANGE (shard);
CREATE TABLE public.tokens_low PARTITION OF public.tokens FOR VALUES FROM (0) TO (50);
CREATE TABLE public.tokens_high PARTITION OF public.tokens FOR VALUES FROM (50) TO (100) PARTITION BY HASH (id);
CREATE TABLE public.tokens_high_0 PARTITION OF public.tokens_high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE public.tokens_high_1 PARTITION OF public.tokens_high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
""",
        shard=True,
    ),
)


def prepare_tables(server: Server, database: str) -> None:
    """Makes them in a database that has the extension and its witnesses."""
    server.execute(JOURNAL, *(statement for table in TABLES for statement in table.setup), dbname=database)
