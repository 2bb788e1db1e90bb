"""A shared lease table that is dropped, made anew, renamed, given away, or never was one."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from harness.outside_reaper import (
    LEASE_COLUMNS, LONG, OWNER, SHARED, TABLE, OutsideReaper, is_reapers, make_lease_table, shared_lease,
    wait_for_reaper,
)  # fmt: skip
from harness.reaper import AT_ONCE, barriers, overdue, status, wait_for, wait_for_cycles, wait_until_reaped
from scenery import log

DROP = f"DROP TABLE {TABLE}"


def test_a_table_that_was_dropped_and_made_anew_is_taken_up_within_a_cycle_or_two(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    make_lease_table(server)
    first = wait_for_reaper(server)
    server.execute(f"BEGIN; {DROP}; CREATE TABLE {TABLE} ({LEASE_COLUMNS}); INSERT INTO {TABLE} VALUES (1); COMMIT")
    second = wait_for_reaper(server, timeout=AT_ONCE)
    assert second != first
    # An outside reaper that is quicker than we are is respected.
    server.execute(
        f"BEGIN; {DROP}; CREATE TABLE {TABLE} ({LEASE_COLUMNS}); INSERT INTO {TABLE} VALUES (1, 'outside'); COMMIT"
    )
    wait_for(server, "standby")
    overdue(server, "due")
    wait_for_cycles(server, 3)
    assert (barriers(server), shared_lease(server).leader) == ({"due"}, "outside")


def test_another_owner_is_no_hindrance(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    make_lease_table(server)
    first = wait_for_reaper(server)
    server.execute("CREATE ROLE heir", f"ALTER TABLE {TABLE} OWNER TO heir", f"GRANT ALL ON {TABLE} TO {OWNER}")
    overdue(server, "due")
    wait_until_reaped(server, "due")
    wait_for_cycles(server, 3)
    assert shared_lease(server).leader == first, "there was no reason to let it go"
    # Who owns it counts, and not who owned it when it was found.
    server.execute(f"REVOKE ALL ON {TABLE} FROM heir")
    wait_for(server, "standby", timeout=AT_ONCE)
    overdue(server, "not due to anybody")
    wait_for_cycles(server, 3)
    assert barriers(server) == {"not due to anybody"}


def test_a_table_that_is_renamed_frees_nobody_elses_hands(make_server: Callable[..., Server]) -> None:
    """The outside reaper, told the new name, must not find a lease that nobody renews for longer than a window."""
    server = make_server({**LONG, "pg_reaper.lease_duration": "4s"})
    make_lease_table(server)
    wait_for_reaper(server)
    server.execute(f"ALTER TABLE {TABLE} RENAME TO elsewhere")
    wait_for(server, "standby")
    stamped = shared_lease(server, "elsewhere").acquired_at
    wait_for_cycles(server, 5)
    assert shared_lease(server, "elsewhere").acquired_at == stamped
    server.set(**{"pg_reaper.lease_table": "public.elsewhere"})
    assert is_reapers(wait_for_reaper(server, table="elsewhere"))
    assert not OutsideReaper(server, table="elsewhere").acquire()


def test_a_temporary_table_and_a_name_without_its_schema_are_no_lease(make_server: Callable[..., Server]) -> None:
    server = make_server({**LONG, "pg_reaper.lease_table": "pg_orchestrator_lock", "search_path": "public"})
    make_lease_table(server)
    overdue(server, "due")
    wait_for(server, "standby")
    (said,) = [entry for entry in log.warnings(server.log(), "lease") if entry.hint]
    assert "with its schema" in said.hint
    session = server.connect()
    session.execute(f"CREATE TEMP TABLE temporary_lock ({LEASE_COLUMNS})")
    session.execute("INSERT INTO temporary_lock VALUES (1)")
    for name in ("temporary_lock", "pg_temp.temporary_lock"):
        server.set(**{"pg_reaper.lease_table": name})
        wait_for_cycles(server, 2)
        assert status(server).state == "standby"
    (schema,) = session.execute("SELECT pg_my_temp_schema()::regnamespace::text").fetchone()
    server.set(**{"pg_reaper.lease_table": f"{schema}.temporary_lock"})
    wait_until(lambda: status(server).last_error, lambda said: said and "temporary_lock cannot hold" in said, "a refusal")
    assert barriers(server) == {"due"}
    server.set(**SHARED)
    wait_until_reaped(server, "due")
