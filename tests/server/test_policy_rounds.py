"""Policies share the worker: each has its turn, and children go before their parents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import wait_for
from scenery import log
from scenery.barriers import BY_HAND, count


def expiring(server: Server, table: str, columns: str = "id int PRIMARY KEY") -> None:
    """A table whose rows expire, and its policy."""
    server.execute(
        f"CREATE TABLE {table} ({columns}, expires_at timestamptz NOT NULL DEFAULT now())",
        f"CREATE INDEX ON {table} (expires_at)",
        f"SELECT pg_reaper_add_policy('{table}', 'expires_at')",
    )


@pytest.mark.parametrize("by_hand", [True, False])
def test_rows_that_hold_a_key_go_before_those_they_point_to(make_server: Callable[..., Server], by_hand: bool) -> None:
    server = make_server(BY_HAND)
    # In the order of their policies the parents would come first.
    expiring(server, "grandparents")
    expiring(server, "parents", "id int PRIMARY KEY, up int REFERENCES grandparents")
    expiring(server, "children", "id int PRIMARY KEY, up int REFERENCES parents")
    server.execute(
        "INSERT INTO grandparents VALUES (1)", "INSERT INTO parents VALUES (1, 1)", "INSERT INTO children VALUES (1, 1)"
    )
    if by_hand:
        assert server.value("SELECT pg_reaper_sweep()") == 3
    else:
        server.set(**{"pg_reaper.enabled": "on"})
    for table in ("children", "parents", "grandparents"):
        wait_until(lambda table=table: count(server, table), lambda n: n == 0, f"{table} to go")
    assert log.warnings(server.log(), "failed") == []


def test_keys_between_partitioned_tables_count_too(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    for table, key in (("parents", ""), ("children", ", up int, at int, FOREIGN KEY (up, at) REFERENCES parents (id, part)")):
        server.execute(
            f"CREATE TABLE {table} (id int, part int, expires_at timestamptz DEFAULT now(), PRIMARY KEY (id, part){key})"
            " PARTITION BY LIST (part)",
            f"CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES IN (1)",
            f"CREATE INDEX ON {table} (expires_at)",
            f"SELECT pg_reaper_add_policy('{table}', 'expires_at')",
        )
    server.execute("INSERT INTO parents VALUES (1, 1)", "INSERT INTO children VALUES (1, 1, DEFAULT, 1, 1)")
    assert server.value("SELECT pg_reaper_sweep()") == 2


def test_a_backlog_of_one_policy_does_not_keep_the_others_waiting(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.batch_size": "10", **BY_HAND})
    expiring(server, "large")
    expiring(server, "small")
    server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON large FOR EACH ROW EXECUTE FUNCTION slow()",
        # A minute and more of work.
        "INSERT INTO large SELECT n FROM generate_series(1, 15000) n",
    )
    server.set(**{"pg_reaper.enabled": "on"})
    before = wait_for(server, "leader")
    wait_until(lambda: count(server, "large"), lambda n: n < 15000, "the large one to be under way")
    for n in range(3):
        server.execute(f"INSERT INTO small VALUES ({n})")
        wait_until(lambda: count(server, "small"), lambda left: left == 0, "the small one to have its turn")
    assert count(server, "large") > 0, "it was over before"
    after = wait_for(server, "leader")
    assert (after.pid, after.term) == (before.pid, before.term)


def test_between_the_batches_of_a_backlog_the_worker_rests(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.batch_size": "1", "pg_reaper.duty_cycle": "1", **BY_HAND})
    expiring(server, "large")
    server.execute(
        "CREATE TABLE gone (at timestamptz)",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_sleep(0.005); INSERT INTO public.gone VALUES (clock_timestamp()); RETURN OLD; END $$",
        "CREATE TRIGGER slow BEFORE DELETE ON large FOR EACH ROW EXECUTE FUNCTION slow()",
        "INSERT INTO large SELECT n, now() - n * interval '1 s' FROM generate_series(1, 6) n",
    )
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: count(server, "large"), lambda n: n == 0, "the backlog to be worked off", 60)
    # Five rests, each of 99 times 5 ms at least.
    assert server.value("SELECT extract(epoch FROM max(at) - min(at)) FROM gone") > 2.4
    # A row that falls due by itself is no backlog.
    server.execute("INSERT INTO large VALUES (7)")
    wait_until(lambda: count(server, "large"), lambda n: n == 0, "it to go")
    assert wait_for(server, "leader").errors == 0
