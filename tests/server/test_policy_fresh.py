"""Whatever is changed of a policy or its tables holds from the next cycle on, not from the next interval."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import status, wait_for_cycles
from scenery import log
from scenery.policies import add, alter, rows, suspended, until_rows, watched, write

# What happens long before this has nothing to do with the interval.
INTERVAL = {"pg_reaper.interval": "60s", "pg_reaper.lease_duration": "180s"}
FAR_SOONER = 30


@pytest.fixture
def ticking(make_server: Callable[..., Server]) -> Server:
    """A server whose worker turns cycle after cycle, though its interval is much longer than the test."""
    # What it writes into the catalogue has the worker read everything again, whatever the test has changed.
    server = make_server({"autovacuum": "off"})
    watched(server, "ticks")
    watched(server, "control")
    server.execute("INSERT INTO ticks SELECT n, now() + n * interval '50 ms' FROM generate_series(1, 6000) n")
    return server


def as_it_was(server: Server) -> None:
    """The worker has read the policies as they are now, and knows what is due within six seconds."""
    write(server, "control", "known as well", due="7 s")
    server.set(**INTERVAL)
    # From now on it turns a cycle for each tick.
    wait_for_cycles(server, 5)


def gone_soon(server: Server, table: str, *left: str) -> None:
    """The due rows of a table go long before the interval is over."""
    until_rows(server, table, *left, timeout=FAR_SOONER)


def stays(server: Server, table: str, name: str) -> None:
    """A row that the worker knew to be due soon is left alone when it is, and another one is not."""
    gone_soon(server, "control")
    assert rows(server, table) == [name]


def test_a_policy_that_is_added_or_switched_on_by_hand(ticking: Server) -> None:
    server = ticking
    watched(server, "jobs", enabled=False)
    write(server, "jobs", "dead")
    server.execute("CREATE TABLE others (id text, due timestamptz, state text)", "CREATE INDEX ON others (due)")
    write(server, "others", "dead")
    as_it_was(server)
    server.execute("UPDATE pg_reaper_policy SET enabled = true WHERE relation = 'jobs'::regclass")
    gone_soon(server, "jobs")
    add(server, "others")
    gone_soon(server, "others")


@pytest.mark.parametrize("by", ["function", "hand", "another row in its place"])
def test_a_policy_that_is_switched_off(ticking: Server, by: str) -> None:
    server = ticking
    policy = watched(server, "jobs")
    write(server, "jobs", "spared", due="6 s")
    as_it_was(server)
    if by == "function":
        alter(server, policy, enabled=False)
    elif by == "hand":
        server.execute(f"UPDATE pg_reaper_policy SET enabled = false WHERE id = {policy}")
    else:
        # As a restore of the table does it.
        server.execute(
            "BEGIN", "CREATE TEMP TABLE saved AS SELECT * FROM pg_reaper_policy", "TRUNCATE pg_reaper_policy CASCADE",
            f"INSERT INTO pg_reaper_policy SELECT * FROM saved WHERE id <> {policy}", "COMMIT",
        )  # fmt: skip
    stays(server, "jobs", "spared")


@pytest.mark.parametrize("how", ["PARTITION", "INHERIT"])
def test_a_leaf_that_is_attached(ticking: Server, how: str) -> None:
    server = ticking
    partitioned = "PARTITION BY LIST (state)" if how == "PARTITION" else ""
    server.execute(
        f"CREATE TABLE jobs (id text, due timestamptz, state text) {partitioned}", "CREATE INDEX ON jobs (due)",
        "CREATE TABLE leaf (id text, due timestamptz, state text)", "CREATE INDEX ON leaf (due)",
    )  # fmt: skip
    add(server, "jobs")
    write(server, "leaf", "dead", state="a")
    as_it_was(server)
    server.execute(
        "ALTER TABLE jobs ATTACH PARTITION leaf FOR VALUES IN ('a')" if partitioned else "ALTER TABLE leaf INHERIT jobs"
    )
    gone_soon(server, "leaf")


@pytest.mark.parametrize("how", ["PARTITION", "INHERIT"])
def test_a_leaf_that_leaves(ticking: Server, how: str) -> None:
    server = ticking
    if how == "PARTITION":
        server.execute(
            "CREATE TABLE jobs (id text, due timestamptz, state text) PARTITION BY LIST (state)",
            "CREATE TABLE leaf PARTITION OF jobs DEFAULT", "CREATE INDEX ON jobs (due)",
        )  # fmt: skip
    else:
        server.execute(
            "CREATE TABLE jobs (id text, due timestamptz, state text)",
            "CREATE TABLE leaf () INHERITS (jobs)", "CREATE INDEX ON leaf (due)",
        )  # fmt: skip
    add(server, "jobs")
    write(server, "leaf", "spared", due="6 s")
    as_it_was(server)
    server.execute("ALTER TABLE jobs DETACH PARTITION leaf" if how == "PARTITION" else "ALTER TABLE leaf NO INHERIT jobs")
    stays(server, "leaf", "spared")


def test_a_schema_that_is_renamed(ticking: Server) -> None:
    server = ticking
    server.execute("CREATE SCHEMA app")
    watched(server, "app.jobs")
    write(server, "app.jobs", "dead", due="3 s")
    as_it_was(server)
    server.execute("ALTER SCHEMA app RENAME TO shop")
    gone_soon(server, "shop.jobs")


def test_a_column_that_is_retyped(ticking: Server) -> None:
    server = ticking
    policy = watched(server, "jobs")
    write(server, "jobs", "spared", due="6 s")
    as_it_was(server)
    server.execute("ALTER TABLE jobs ALTER due TYPE timestamp")
    stays(server, "jobs", "spared")
    assert "no point in time without a time zone" in (suspended(server, policy) or "")


@pytest.mark.parametrize("change", ["REVOKE other FROM author", "ALTER ROLE author NOSUPERUSER"])
def test_a_role_that_loses_what_its_filter_needs(ticking: Server, change: str) -> None:
    server = ticking
    server.execute(
        f"CREATE ROLE author {'SUPERUSER' if 'SUPERUSER' in change else ''}", "CREATE ROLE other", "GRANT other TO author",
        "CREATE TABLE jobs (id text, due timestamptz, state text)", "ALTER TABLE jobs OWNER TO author",
        "CREATE TABLE leaf () INHERITS (jobs)", "CREATE INDEX ON leaf (due)", "ALTER TABLE leaf OWNER TO other",
    )  # fmt: skip
    if "SUPERUSER" in change:
        server.execute("REVOKE other FROM author")
    add(server, "jobs", filter="state = 'open'")
    write(server, "leaf", "spared", due="6 s")
    as_it_was(server)
    server.execute(change)
    stays(server, "leaf", "spared")
    wait_until(lambda: log.failures(server.log(), "public.leaf"), bool, "the report")
    assert status(server).state == "leader"
