"""How often and how fast a policy is swept: its own interval, rate, batches; changed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest

from harness import Server, wait_until
from harness.reaper import lease, wait_for, wait_for_cycles
from scenery.barriers import adopted, count, until_empty
from scenery.policies import COLUMNS, add, alter, rows, until_rows, watched, write


def noted(server: Server, *tables: str) -> None:
    """Notes when each row of these tables goes, and in which transaction."""
    server.execute(
        "CREATE TABLE diary (id text, at timestamptz DEFAULT clock_timestamp(), xid text DEFAULT pg_current_xact_id()::text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.diary (id) VALUES (OLD.id); RETURN OLD; END $$",
    )
    for table in tables:
        server.execute(f"CREATE TRIGGER note BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note()")


def batches(server: Server) -> list[tuple[float, int]]:
    """The transactions that reaped: when each began to, and how many rows went."""
    return server.query(
        "SELECT extract(epoch FROM min(at))::float8, count(*)::int FROM diary GROUP BY xid ORDER BY 1"
    )


def most_in_any_stretch_beyond(rate: int, found: list[tuple[float, int]]) -> float:
    """By how many rows the busiest stretch of time has more than its share."""
    worst = 0.0
    for first, (start, _) in enumerate(found):
        totals = accumulate(rows for _, rows in found[first:])
        worst = max([worst, *(n - rate * (at - start) for n, (at, _) in zip(totals, found[first:], strict=True))])
    return worst


@pytest.mark.parametrize("partitioned", [False, True])
def test_the_rate_is_a_cap_over_every_stretch_of_time_and_the_lease_stays(
    make_server: Callable[..., Server], partitioned: bool
) -> None:
    server = make_server({"pg_reaper.interval": "200ms", "pg_reaper.lease_duration": "3s"})
    how = "PARTITION BY HASH (id)" if partitioned else ""
    server.execute(f"CREATE TABLE jobs ({COLUMNS}) {how}", "CREATE INDEX ON jobs (due)")
    leaves = [f"leaf{n}" for n in range(4)] if partitioned else ["jobs"]
    for n in range(4 if partitioned else 0):
        server.execute(f"CREATE TABLE leaf{n} PARTITION OF jobs FOR VALUES WITH (MODULUS 4, REMAINDER {n})")
    noted(server, *leaves)
    write(server, "jobs", *[f"dead {n}" for n in range(200)])
    term = wait_for(server, "leader").term
    add(server, "jobs", rate_limit=40)
    # A reload and a change of the policy are no way around it.
    wait_until(lambda: count(server, "diary"), lambda n: n >= 60, "some rows to go")
    server.reload()
    server.reload()
    until_rows(server, "jobs", timeout=60)
    # One batch is half a second's worth.
    assert most_in_any_stretch_beyond(40, batches(server)) <= 20 + 1
    assert (wait_for(server, "leader").term, lease(server).term) == (term, term)


def test_the_rate_holds_for_both_rules_of_a_barrier_policy_together(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.stuck_timeout": "2s"})
    server.execute("CREATE TABLE jobs (id text, execution_id text, expires_at timestamptz, last_progress_at timestamptz)")
    server.execute("CREATE INDEX ON jobs (expires_at)")
    noted(server, "jobs")
    policy = server.value("SELECT pg_reaper_adopt('jobs')")
    alter(server, policy, rate_limit=40)
    server.execute(
        "INSERT INTO jobs SELECT n, n, CASE WHEN n % 2 = 0 THEN now() ELSE 'infinity' END, now() - interval '1 day'"
        " FROM generate_series(1, 120) AS n"
    )
    until_empty(server, "jobs", timeout=60)
    assert most_in_any_stretch_beyond(40, batches(server)) <= 2 * 20 + 1


def test_a_policy_with_a_rate_does_not_hold_up_the_others(server: Server) -> None:
    watched(server, "slow", rate_limit=1)
    watched(server, "fast")
    write(server, "slow", *[f"dead {n}" for n in range(500)])
    wait_until(lambda: count(server, "slow"), lambda n: n < 500, "the slow one to begin")
    write(server, "fast", *[f"dead {n}" for n in range(2000)])
    until_rows(server, "fast")
    assert count(server, "slow") > 300


def test_a_rate_that_is_lifted_is_lifted_at_once(server: Server) -> None:
    policy = watched(server, "jobs", rate_limit=1)
    write(server, "jobs", *[f"dead {n}" for n in range(1000)])
    wait_until(lambda: count(server, "jobs"), lambda n: n < 1000, "it to begin")
    alter(server, policy, reset=["rate_limit"])
    until_rows(server, "jobs")


def test_the_batches_of_a_policy_are_of_its_own_size(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.enabled": "off"})
    watched(server, "small", batch_size=7)
    watched(server, "large")
    noted(server, "small", "large")
    write(server, "small", *[f"small {n}" for n in range(20)])
    write(server, "large", *[f"large {n}" for n in range(20)])
    server.set(**{"pg_reaper.enabled": "on"})
    until_rows(server, "small")
    until_rows(server, "large")
    sizes = server.query("SELECT count(*) FROM diary WHERE id ~ 'small' GROUP BY xid ORDER BY min(at)")
    assert sizes == [(7,), (7,), (6,)]
    assert server.value("SELECT count(DISTINCT xid) FROM diary WHERE id ~ 'large'") == 1


def test_an_interval_of_its_own_is_kept_to_and_changed_within_the_common_one(server: Server) -> None:
    watched(server, "others")
    server.execute(f"CREATE TABLE jobs ({COLUMNS})", "CREATE INDEX ON jobs (due)")
    write(server, "jobs", "first")
    write(server, "jobs", "third", due="5 s")
    policy = add(server, "jobs", sweep_interval="1 h")
    until_rows(server, "jobs", "third")
    write(server, "jobs", "second")
    overdue = "SELECT due < now() - interval '300 ms' FROM jobs WHERE id = 'third'"
    wait_until(lambda: server.value(overdue), lambda late: late is not False, "the third one to be due")
    write(server, "others", "dead")
    until_rows(server, "others")
    wait_for_cycles(server, 10)
    assert rows(server, "jobs") == ["second", "third"]
    alter(server, policy, reset=["sweep_interval"])
    until_rows(server, "jobs")


def test_an_interval_of_its_own_may_be_shorter_than_the_common_one(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.interval": "60s", "pg_reaper.lease_duration": "120s"})
    wait_for(server, "leader")
    watched(server, "jobs", sweep_interval="100 ms")
    server.reload()
    for n in range(3):
        write(server, "jobs", f"dead {n}")
        until_rows(server, "jobs")


def test_a_policy_that_is_not_enabled_is_not_swept_until_it_is(server: Server) -> None:
    policy = watched(server, "jobs", enabled=False)
    watched(server, "others")
    write(server, "jobs", "dead")
    write(server, "others", "dead")
    until_rows(server, "others")
    wait_for_cycles(server)
    assert rows(server, "jobs") == ["dead"]
    assert server.value("SELECT pg_reaper_sweep()") == 0
    alter(server, policy, enabled=True)
    until_rows(server, "jobs")
    alter(server, policy, enabled=False)
    wait_for_cycles(server)
    write(server, "jobs", "dead again")
    wait_for_cycles(server)
    assert rows(server, "jobs") == ["dead again"]


def test_the_built_in_policy_can_be_switched_off(server: Server) -> None:
    alter(server, 1, enabled=False)
    wait_for_cycles(server)
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('dead', 1, '-infinity', now())"
    )
    wait_for_cycles(server)
    assert count(server) == 1
    alter(server, 1, enabled=True)
    until_empty(server)


def test_what_a_changed_policy_reaps_is_not_hidden_by_how_far_the_old_one_had_come(server: Server) -> None:
    # The left edge is walked seldom once a walk of it was dear, so that rows below the low-water
    # mark of the old column would stay for long.
    server.execute(
        "CREATE TABLE jobs (id text, due timestamptz, made timestamptz, state text)",
        "CREATE INDEX ON jobs (due)", "CREATE INDEX ON jobs (made)",
        "CREATE FUNCTION slow(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.15); RETURN true; END $$",
    )  # fmt: skip
    policy = add(server, "jobs", "due", filter="slow(state) AND state = 'done'")
    server.execute(
        "INSERT INTO jobs VALUES ('by due', now() - interval '1 day', now(), 'done'),"
        " ('by made', now() + interval '1 day', now() - interval '1 year', 'open')"
    )
    until_rows(server, "jobs", "by made")
    alter(server, policy, expires_column="made", ttl="1 h", reset=["filter"])
    until_rows(server, "jobs", timeout=8)


def stuck(server: Server, table: str) -> None:
    """Leaves a barrier that has made no progress for two hours, and one that has."""
    server.execute(
        f"DELETE FROM {table}",
        f"INSERT INTO {table} VALUES ('stuck', '', 1, 'infinity', now() - interval '2 h'), ('moves', '', 1, 'infinity', now())",
    )


def until_one_is_left(server: Server, table: str) -> None:
    wait_until(lambda: count(server, table), lambda n: n == 1, f"the stuck one of {table} to go")


def test_a_barrier_policy_can_have_a_timeout_of_its_own(server: Server) -> None:
    adopted(server, "public.jobs")
    adopted(server, "public.others")
    policy = server.value("SELECT id FROM pg_reaper_policy WHERE relation = 'jobs'::regclass")
    stuck(server, "jobs")
    stuck(server, "others")
    alter(server, policy, stuck_timeout="1 h")
    until_one_is_left(server, "jobs")
    assert count(server, "others") == 2
    # A scan for such rows comes every quarter of the timeout; a new one does not wait for that.
    stuck(server, "jobs")
    alter(server, policy, stuck_timeout="90 min")
    until_one_is_left(server, "jobs")
    server.set(**{"pg_reaper.stuck_timeout": "1h"})
    until_one_is_left(server, "others")
    stuck(server, "others")
    stuck(server, "jobs")
    # Zero is none, whatever the common one is.
    alter(server, policy, stuck_timeout="0")
    wait_for_cycles(server)
    stuck(server, "jobs")
    server.set(**{"pg_reaper.stuck_timeout": "90min"})
    until_one_is_left(server, "others")
    wait_for_cycles(server)
    assert count(server, "jobs") == 2
