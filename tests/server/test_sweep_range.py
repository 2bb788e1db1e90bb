"""Ranges of the index, each walked once by a DELETE that ends after so many rows; and what has no such range."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import PATIENT, wait_for, wait_for_sweep
from scenery.policies import add, sweep

BATCH = 10
COLUMNS = "id integer, due timestamptz, state text DEFAULT 'open', wide text"


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    settings = {"pg_reaper.enabled": "off", "pg_reaper.batch_size": str(BATCH), "autovacuum": "off"}
    server = make_server({**PATIENT, **settings})
    server.execute(f"CREATE TABLE jobs ({COLUMNS})")
    return server


def fill(server: Server, rows: int, live: int = 0, past: str = "1 hour") -> None:
    """Rows in no order, each with a deadline of its own, and as many that have time if not told."""
    due = f"now() - interval '{past}' + n * interval '1 s'"
    server.execute(
        f"INSERT INTO jobs (id, due, wide) SELECT n, {due}, repeat('w', 450)"
        f" FROM generate_series(1, {rows}) AS n ORDER BY n * 7919 % {rows}",
        f"INSERT INTO jobs (id, due, wide) SELECT -n, now() + n * interval '1 h', repeat('w', 450)"
        f" FROM generate_series(1, {live or rows}) AS n ORDER BY n * 7919 % {live or rows}",
    )


# A trigger that lists the rows of each DELETE.
WITNESS = (
    "CREATE TABLE gone (batch serial, ids integer[])",
    "CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO public.gone (ids) SELECT array_agg(id) FROM went; RETURN NULL; END $$",
    "CREATE TRIGGER witness AFTER DELETE ON jobs REFERENCING OLD TABLE AS went"
    " FOR EACH STATEMENT EXECUTE FUNCTION witness()",
)


def batches(server: Server) -> list[list[int]]:
    """The rows of each DELETE that had any, in their order."""
    return [ids for (ids,) in server.query("SELECT ids FROM gone WHERE ids IS NOT NULL ORDER BY batch")]


def left(server: Server) -> list[int]:
    """The rows that are left of those that were due."""
    return [n for (n,) in server.query("SELECT id FROM jobs WHERE id > 0 ORDER BY 1")]


def entries_read(server: Server, policy: int) -> tuple[int, int]:
    """Sweeps a policy: how many rows went, and how many entries of indexes it read for them."""
    read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'jobs'"
    with server.connect() as session:
        before = session.execute(read).fetchone()[0]
        reaped = session.execute("SELECT pg_reaper_sweep(policy => %s)", [policy]).fetchone()[0]
        session.execute("SELECT pg_stat_force_next_flush()")
    return reaped, server.value(read) - before


@pytest.mark.parametrize("reacts", [False, True])
def test_a_range_is_walked_once(server: Server, reacts: bool) -> None:
    server.execute("CREATE INDEX ON jobs (due)")
    policy = add(server, "jobs")
    if reacts:
        server.execute(*WITNESS)
    fill(server, 500)
    reaped, read = entries_read(server, policy)
    # Each batch reads one more, to see where the next begins.
    assert reaped == 500 and 500 <= read <= 500 + 2 * (500 // BATCH) + BATCH, read


@pytest.mark.parametrize("rows", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, 57])
def test_a_statement_trigger_sees_every_row_once_and_no_more_than_a_batch(server: Server, rows: int) -> None:
    server.execute("CREATE INDEX ON jobs (due)")
    policy = add(server, "jobs")
    server.execute(*WITNESS)
    fill(server, rows)
    assert sweep(server, policy) == rows
    seen = batches(server)
    # The earliest go first, in batches as large as they may be.
    assert [n for batch in seen for n in sorted(batch)] == list(range(1, rows + 1))
    assert [len(batch) for batch in seen[:-1]] == [BATCH] * (len(seen) - 1)
    assert left(server) == []


@pytest.mark.parametrize("same", [2, BATCH - 1, BATCH, BATCH + 1, 4 * BATCH])
def test_rows_with_one_deadline_all_go(server: Server, same: int) -> None:
    server.execute("CREATE INDEX ON jobs (due)")
    policy = add(server, "jobs")
    server.execute(*WITNESS)
    fill(server, 100)
    server.execute(f"UPDATE jobs SET due = timestamptz '2020-01-01' + id / {same} * interval '1 s' WHERE id > 0")
    assert sweep(server, policy) == 100
    seen = [n for batch in batches(server) for n in batch]
    assert sorted(seen) == list(range(1, 101))
    assert all(len(batch) <= BATCH for batch in batches(server))
    assert left(server) == []
    assert server.value("SELECT count(*) FROM jobs") == 100


def test_a_deadline_that_more_rows_have_than_a_batch_is_not_walked_from_its_beginning_by_each(server: Server) -> None:
    server.execute("CREATE INDEX ON jobs (due)")
    policy = add(server, "jobs")
    # Written once: old versions would be read as well, for as long as somebody keeps VACUUM from them.
    fill(server, 0, live=500)
    server.execute(
        "INSERT INTO jobs (id, due, wide) SELECT n, '2020-01-01', repeat('w', 450) FROM generate_series(1, 500) AS n"
    )
    reaped, read = entries_read(server, policy)
    # Once by the range that finds it out, and once to read all of them ahead.
    assert reaped == 500 and read <= 2 * 500, read


@pytest.mark.parametrize("max_rows", [1, BATCH, 2 * BATCH + 3])
def test_no_more_rows_go_than_were_asked_for(server: Server, max_rows: int) -> None:
    server.execute("CREATE INDEX ON jobs (due)")
    add(server, "jobs")
    fill(server, 40)
    assert server.value("SELECT pg_reaper_sweep('jobs', max_rows => %s)", [max_rows]) == max_rows
    assert left(server) == list(range(max_rows + 1, 41))


# Each is such that the planner goes along it, rather than along a wide one in the usual order, if there
# has to be one of that kind too.
LIVE = 10_000
WIDE = "CREATE INDEX wide ON jobs (due) INCLUDE (wide) WITH (fillfactor = 10)"
INDEXES = {
    "descending": ["CREATE INDEX narrow ON jobs (due DESC)"],
    "descending, nulls last": ["CREATE INDEX narrow ON jobs (due DESC NULLS LAST)"],
    "descending beside a wide one": ["CREATE INDEX narrow ON jobs (due DESC)", WIDE],
    "nulls first": ["CREATE INDEX narrow ON jobs (due NULLS FIRST)"],
    "more columns": ["CREATE INDEX narrow ON jobs (due, state DESC, id)"],
    "unique": ["CREATE UNIQUE INDEX narrow ON jobs (due, id)"],
    "of another first column": ["CREATE INDEX other ON jobs (state, due)"],
    # Not built by sorting, which would leave it in order by chance.
    "GiST beside a wide one": [
        "CREATE EXTENSION btree_gist", "CREATE INDEX narrow ON jobs USING gist (due) WITH (buffering = on)", WIDE,
    ],
    "backwards beside a wide one": [
        "CREATE FUNCTION backwards(timestamptz, timestamptz) RETURNS integer IMMUTABLE STRICT LANGUAGE sql"
        " RETURN timestamptz_cmp($2, $1)",
        "CREATE OPERATOR CLASS backwards FOR TYPE timestamptz USING btree AS OPERATOR 1 >, OPERATOR 2 >=,"
        " OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 backwards(timestamptz, timestamptz)",
        "CREATE INDEX narrow ON jobs (due backwards)",
        WIDE,
    ],
}  # fmt: skip


@pytest.mark.parametrize("indexes", INDEXES.values(), ids=INDEXES.keys())
def test_whatever_index_the_planner_takes_nothing_due_is_left(server: Server, indexes: list[str]) -> None:
    fill(server, 300, live=LIVE)
    server.execute(*indexes, "ANALYZE jobs")
    policy = add(server, "jobs")
    assert sweep(server, policy) == 300
    assert (left(server), server.value("SELECT count(*) FROM jobs")) == ([], LIVE)


@pytest.mark.parametrize("indexes", [kind for kind in INDEXES if "beside" in kind])
def test_the_planner_does_take_the_narrow_index(server: Server, indexes: str) -> None:
    # What the tests above take for granted.
    fill(server, 300, live=LIVE)
    server.execute(*INDEXES[indexes], "ANALYZE jobs")
    with server.connect() as session:
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_tidscan", "enable_sort"):
            session.execute(f"SET {setting} = off")
        session.execute("SET plan_cache_mode = force_generic_plan")
        session.execute(
            "PREPARE range (timestamptz, timestamptz) AS DELETE FROM ONLY jobs WHERE due >= $1 AND due < $2"
        )
        plan = "\n".join(line for (line,) in session.execute("EXPLAIN EXECUTE range (now(), now())"))
    assert "Index Scan using narrow" in plan, plan


@pytest.mark.parametrize("index", ["(due)", "(due, state)", "(due) WHERE state = 'open'"])
@pytest.mark.parametrize("filtered", ["state = 'open'", "due < '2100-01-01Z'", "id > 20", "id % 2 = 0"])
def test_what_a_filter_leaves_out_stays_and_counts(server: Server, filtered: str, index: str) -> None:
    server.execute(f"CREATE INDEX ON jobs {index}")
    policy = add(server, "jobs", filter=filtered)
    fill(server, 60)
    server.execute("UPDATE jobs SET state = 'done' WHERE id > 0 AND id % 3 = 0", *WITNESS)
    kept = [n for (n,) in server.query(f"SELECT id FROM jobs WHERE id > 0 AND NOT ({filtered}) ORDER BY 1")]
    assert sweep(server, policy) == 60 - len(kept)
    assert left(server) == kept
    if not index.endswith("'open'"):
        # A batch reads no more rows than it may have, and those that are left out lie between the others.
        assert all(max(batch) - min(batch) < BATCH for batch in batches(server))


def test_a_trigger_that_comes_between_two_batches_sees_all_rows_from_then_on(server: Server) -> None:
    wait_for(server, "disabled")
    server.execute("CREATE INDEX ON jobs (due)")
    add(server, "jobs")
    fill(server, 20_000, past="1 day")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: len(left(server)) < 20_000, bool, "the sweep to begin")
    session = server.connect(autocommit=False)
    session.execute("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE")
    rest = [n for (n,) in session.execute("SELECT id FROM jobs WHERE id > 0 ORDER BY 1")]
    for statement in WITNESS:
        session.execute(statement)
    session.commit()
    assert rest, "the trigger came too late to see anything"
    wait_until(lambda: left(server), lambda rows: not rows, "the rest to go", 120)
    assert sorted(n for batch in batches(server) for n in batch) == rest


def test_rows_that_a_trigger_keeps_are_passed_over_and_not_forgotten(server: Server) -> None:
    server.execute(
        "CREATE INDEX ON jobs (due)",
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON jobs FOR EACH ROW WHEN (OLD.state = 'kept') EXECUTE FUNCTION keep()",
    )
    policy = add(server, "jobs")
    fill(server, 100)
    server.execute("UPDATE jobs SET state = 'kept' WHERE id > 0 AND id % 3 = 0 OR id BETWEEN 40 AND 70")
    kept = [n for (n,) in server.query("SELECT id FROM jobs WHERE state = 'kept' ORDER BY 1")]
    assert sweep(server, policy) == 100 - len(kept)
    assert left(server) == kept
    server.execute("ALTER TABLE jobs DISABLE TRIGGER keep")
    assert sweep(server, policy) == len(kept)


def test_where_rows_are_left_is_remembered_from_pass_to_pass(server: Server) -> None:
    # The left edge of the index is so dear to walk that the next walk is many seconds off: what a range
    # could not have is found before that only if the range has said where it is.
    server.execute(
        "CREATE INDEX ON jobs (due)",
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON jobs FOR EACH ROW WHEN (OLD.state = 'kept') EXECUTE FUNCTION keep()",
        "INSERT INTO jobs (id, due) SELECT n, timestamptz '2020-01-01' + n * interval '1 s'"
        " FROM generate_series(1, 600000) AS n",
    )
    old = server.connect(autocommit=False)
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT FROM jobs LIMIT 1")
    server.execute("DELETE FROM jobs")
    fill(server, 35)
    server.execute("UPDATE jobs SET state = 'kept' WHERE id IN (3, 17, 34)")
    add(server, "jobs")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: left(server), lambda rows: rows == [3, 17, 34], "the others to go")
    wait_for_sweep(server)
    server.execute("ALTER TABLE jobs DISABLE TRIGGER keep")
    wait_until(lambda: left(server), lambda rows: not rows, "those that were kept to go", 4)
