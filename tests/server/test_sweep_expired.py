"""The sweep of one table: what is reaped, what is not, and how far one pass goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness import Server
from scenery import log
from scenery.barriers import BUILTIN, BY_HAND, adopted, arm, arm_many, count, ids, until_empty, until_left

# As in src/decide/walk.rs: how many rows are read ahead at once.
READ_AHEAD = 20_000


@pytest.fixture
def by_hand(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A server whose worker leaves everything to the function."""
    yield make_server({**BY_HAND, "pg_reaper.log_limit": "0"})


def test_the_worker_reaps_what_has_expired_and_never_what_lives(server: Server) -> None:
    arm(server, "dead", "deader", due="-1 s")
    arm(server, "alive", due="1 h")
    until_left(server, ["alive"])
    # It goes on looking, and goes on sparing.
    arm(server, "late")
    until_left(server, ["alive"])


def test_the_function_reaps_what_has_expired_and_never_what_lives(by_hand: Server) -> None:
    arm(by_hand, "dead", "deader", due="-1 s")
    arm(by_hand, "alive", due="1 h")
    assert by_hand.value("SELECT pg_reaper_sweep()") == 2
    assert ids(by_hand) == ["alive"]
    assert by_hand.value("SELECT pg_reaper_sweep()") == 0


def test_a_barrier_is_reaped_once_its_deadline_passes_and_not_before(server: Server) -> None:
    # The server's own clock says when the row went, and when it was due.
    server.execute(
        "CREATE TABLE gone (due timestamptz, at timestamptz)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.gone VALUES (OLD.expires_at, clock_timestamp()); RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION note()",
    )
    arm(server, "soon", due="0.5 s")
    until_empty(server)
    assert server.value("SELECT at >= due FROM gone")


def test_one_deadline_shared_by_thousands_of_rows_is_reaped_in_batches_under_an_old_snapshot(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.batch_size": "100", "pg_reaper.log_limit": "0", "pg_reaper.enabled": "off"})
    arm(server, "alive", due="1 h")
    arm_many(server, 5000, "now() - interval '1 min'")
    server.execute(
        "CREATE TABLE batches (rows bigint)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.batches SELECT count(*) FROM gone; RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER DELETE ON pg_barrier_state REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    old = server.connect(autocommit=False)
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT count(*) FROM pg_barrier_state")

    server.set(**{"pg_reaper.enabled": "on"})
    until_left(server, ["alive"])
    assert server.value("SELECT sum(rows) FROM batches") == 5000
    assert server.value("SELECT max(rows) FROM batches") == 100
    assert old.execute("SELECT count(*) FROM pg_barrier_state").fetchone() == (5001,)


def test_one_call_reaps_more_rows_than_are_read_ahead_with_ties_across_the_boundary(by_hand: Server) -> None:
    # Deadlines in runs of 7000 equal ones, so that no boundary of 20,000 falls between two runs.
    arm_many(by_hand, 2 * READ_AHEAD + 5000, "now() - interval '1 h' + (n / 7000) * interval '1 s'")
    assert by_hand.value("SELECT pg_reaper_sweep()") == 2 * READ_AHEAD + 5000
    assert count(by_hand) == 0


def test_rows_written_in_another_order_than_they_expire_are_all_reaped(server: Server) -> None:
    server.set(**{"pg_reaper.log_limit": 0})
    arm_many(server, READ_AHEAD + 5000, "now() - ((n * 7919) % 10007) * interval '1 s' - interval '1 s'")
    arm(server, "alive", due="1 h")
    until_left(server, ["alive"])


def test_rows_locked_in_the_middle_are_passed_over_and_reaped_later(make_server: Callable[..., Server]) -> None:
    server = make_server({**BY_HAND, "pg_reaper.batch_size": "10"})
    # Their order by deadline is b1 (latest) to b100 (earliest).
    arm_many(server, 100, "now() - n * interval '1 min'")
    holder = server.connect(autocommit=False)
    holder.execute("SELECT FROM pg_barrier_state WHERE execution_id IN ('b44', 'b45', 'b60') FOR UPDATE")
    server.set(**{"pg_reaper.enabled": "on"})
    until_left(server, ["b44", "b45", "b60"])
    holder.rollback()
    until_empty(server)


def test_the_function_passes_over_locked_rows_without_waiting(by_hand: Server) -> None:
    arm(by_hand, "a", "b", "c")
    holder = by_hand.connect(autocommit=False)
    holder.execute("SELECT FROM pg_barrier_state WHERE execution_id = 'b' FOR UPDATE")
    with by_hand.connect() as caller:
        # A wait would end in an error, since nobody lets go of the row.
        caller.execute("SET statement_timeout = '20s'")
        assert caller.execute("SELECT pg_reaper_sweep()").fetchone() == (2,)
    assert ids(by_hand) == ["b"]


def test_a_row_that_expires_while_the_pass_runs_waits_for_the_next_one(by_hand: Server) -> None:
    # A full read-ahead in one batch, so that the pass reads again after the slow trigger.
    adopted(by_hand, "public.jobs")
    by_hand.set(**{"pg_reaper.batch_size": 2 * READ_AHEAD})
    arm_many(by_hand, READ_AHEAD, "now() - interval '1 min'", table="public.jobs")
    by_hand.execute(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " WHILE clock_timestamp() <= (SELECT max(expires_at) FROM public.jobs WHERE execution_id = 'soon') LOOP"
        "   PERFORM pg_sleep(0.02); END LOOP; RETURN NULL; END $$",
        "CREATE TRIGGER linger AFTER DELETE ON jobs FOR EACH STATEMENT EXECUTE FUNCTION linger()",
    )
    arm(by_hand, "soon", due="1.5 s", table="public.jobs")
    assert by_hand.value("SELECT pg_reaper_sweep('jobs')") == READ_AHEAD
    assert ids(by_hand, "public.jobs") == ["soon"]
    assert by_hand.value("SELECT pg_reaper_sweep('jobs')") == 1


def test_a_deadline_that_is_null_or_infinite_never_comes(by_hand: Server) -> None:
    adopted(by_hand, "public.jobs")
    by_hand.execute(
        "INSERT INTO jobs VALUES ('null', '', 1, NULL), ('infinite', '', 1, 'infinity'), ('dead', '', 1, now())"
    )
    assert by_hand.value("SELECT pg_reaper_sweep()") == 1
    assert ids(by_hand, "public.jobs") == ["infinite", "null"]


def test_a_deadline_before_all_time_has_come(make_server: Callable[..., Server]) -> None:
    server = make_server()
    adopted(server, "public.jobs")
    server.execute(
        "INSERT INTO jobs VALUES ('always', '', 1, '-infinity'), ('ancient', '', 1, '4713-01-01 BC'),"
        " ('far', '', 1, '290000-01-01')"
    )
    until_left(server, ["far"], "public.jobs")
    assert set(log.until_told(server, "always", "ancient")) == {"always", "ancient"}
    assert log.failures(server.log(), "public.jobs") == []


@pytest.mark.parametrize("max_rows", [0, 1, 7, 10, 11, 25])
def test_max_rows_bounds_a_sweep_exactly(by_hand: Server, max_rows: int) -> None:
    by_hand.set(**{"pg_reaper.batch_size": 4})
    adopted(by_hand, "public.jobs")
    arm(by_hand, *[f"b{n}" for n in range(10)])
    arm(by_hand, *[f"j{n}" for n in range(10)], table="public.jobs")
    reaped = by_hand.value("SELECT pg_reaper_sweep(max_rows => %s)", [max_rows])
    assert reaped == min(max_rows, 20)
    assert count(by_hand, BUILTIN) + count(by_hand, "public.jobs") == 20 - reaped


def test_max_rows_is_filled_with_later_rows_where_earlier_ones_are_locked(by_hand: Server) -> None:
    arm_many(by_hand, 10, "now() - n * interval '1 min'")
    holder = by_hand.connect(autocommit=False)
    holder.execute("SELECT FROM pg_barrier_state WHERE execution_id IN ('b10', 'b9', 'b8') FOR UPDATE")
    assert by_hand.value("SELECT pg_reaper_sweep(max_rows => 3)") == 3
    assert ids(by_hand) == ["b1", "b10", "b2", "b3", "b4", "b8", "b9"]
