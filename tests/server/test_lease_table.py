"""pg_reaper.lease_table as a setting: who may set it, where, with what, and what a change of it does."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.outside_reaper import (
    LONG, SHARED, TABLE, OutsideReaper, is_reapers, make_lease_table, shared_lease, wait_for_reaper,
)  # fmt: skip
from harness.reaper import (
    AT_ONCE, PATIENT, barriers, lease, overdue, status, wait_for, wait_for_cycles, wait_until_reaped,
)  # fmt: skip
from scenery import log

ADVISORY = {"pg_reaper.leadership": "advisory"}
PAIR = "pg_reaper.lease_table (public.pg_orchestrator_lock) has no meaning with pg_reaper.leadership = advisory"


def own_is_held(server: Server) -> bool:
    return lease(server).leader != ""


def test_a_reload_hands_the_leadership_from_the_own_table_to_the_shared_one_and_back(
    make_server: Callable[..., Server],
) -> None:
    # No lease runs out here: what is not released is not taken.
    server = make_server(PATIENT)
    make_lease_table(server)
    wait_for(server, "leader")
    for turn in range(1, 4):
        assert lease(server).term == turn
        server.set(**SHARED)
        shared = wait_for_reaper(server, timeout=AT_ONCE)
        assert not own_is_held(server)
        row = wait_until(lambda: status(server), lambda row: row.leader == shared, "the status to follow")
        assert (row.state, row.term) == ("leader", None)
        overdue(server, f"shared {turn}")
        wait_until_reaped(server, f"shared {turn}")

        server.set(**{"pg_reaper.lease_table": ""})
        wait_until(lambda: own_is_held(server), bool, "its own lease to be taken", AT_ONCE)
        assert shared_lease(server).leader == ""
        row = wait_until(lambda: status(server), lambda row: row.term is not None, "the status to follow")
        assert (row.state, row.term, row.leader) == ("leader", turn + 1, lease(server).leader)
        overdue(server, f"own {turn}")
        wait_until_reaped(server, f"own {turn}")


def test_a_reload_hands_it_from_one_shared_table_to_another(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    make_lease_table(server)
    make_lease_table(server, "public.other_lock")
    wait_for_reaper(server)
    server.set(**{"pg_reaper.lease_table": "public.other_lock"})
    wait_for_reaper(server, table="public.other_lock", timeout=AT_ONCE)
    assert shared_lease(server).leader == ""


@pytest.mark.parametrize("to", ["public.nowhere", "public.no_lease", "nonsense.of.too.many.parts", '"'])
@pytest.mark.parametrize("by", [PATIENT, LONG], ids=["own", "shared"])
def test_a_reload_to_what_is_no_lease_gives_up_the_one_before_and_back_takes_it_again(
    make_server: Callable[..., Server], by: dict[str, str], to: str
) -> None:
    server = make_server(by)
    make_lease_table(server)
    server.execute("CREATE TABLE no_lease (id integer)")
    wait_for(server, "leader")
    wait_until(lambda: own_is_held(server) or is_reapers(shared_lease(server).leader), bool, "a lease")
    server.set(**{"pg_reaper.lease_table": to})
    wait_for(server, "standby")
    wait_until(lambda: (own_is_held(server), shared_lease(server).leader), (False, "").__eq__, "no lease", AT_ONCE)
    overdue(server, "due")
    before = status(server).last_cycle
    wait_until(lambda: status(server).last_cycle, lambda now: now > before, "the worker to turn a cycle")
    assert barriers(server) == {"due"}
    server.set(**{"pg_reaper.lease_table": None})
    wait_until_reaped(server, "due", timeout=AT_ONCE)


def test_together_with_a_session_lock_it_is_refused_at_the_start_until_one_of_the_two_goes(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({**LONG, **ADVISORY})
    make_lease_table(server)
    overdue(server, "due")
    wait_for(server, "misconfigured")
    wait_for_cycles(server, 3)
    assert (barriers(server), shared_lease(server).leader, lease(server).term) == ({"due"}, "", 0)
    (said,) = log.warnings(server.log(), "pg_reaper.lease_table")
    assert PAIR in said.message and "the worker does not lead" in said.message
    assert "Leave one of the two out" in said.hint
    server.set(**{"pg_reaper.leadership": "lease"})
    wait_until_reaped(server, "due")
    assert is_reapers(shared_lease(server).leader)


@pytest.mark.parametrize("first", ["table", "lock"])
def test_together_with_a_session_lock_a_reload_leaves_the_last_valid_pair(
    make_server: Callable[..., Server], first: str
) -> None:
    server = make_server(LONG if first == "table" else {**PATIENT, **ADVISORY})
    make_lease_table(server)
    wait_for(server, "leader")
    held = shared_lease(server).leader
    server.set(**(ADVISORY if first == "table" else SHARED), **{"pg_reaper.batch_size": "7"})
    (said,) = wait_until(lambda: log.warnings(server.log(), "pg_reaper.lease_table"), bool, "the WARNING")
    assert PAIR in said.message and "the last valid pair stays in force" in said.message
    overdue(server, "due")
    wait_until_reaped(server, "due")
    assert (status(server).state, shared_lease(server).leader) == ("leader", held)
    # The next valid reload, and no restart, brings what was asked for.
    server.set(**({"pg_reaper.lease_table": ""} if first == "table" else {"pg_reaper.leadership": "lease"}))
    if first == "table":
        wait_until(lambda: shared_lease(server).leader, "".__eq__, "the shared lease to be released", AT_ONCE)
        assert lease(server).term == 0
    else:
        wait_for_reaper(server, timeout=AT_ONCE)
    overdue(server, "due again")
    wait_until_reaped(server, "due again")


def test_one_database_alone_can_have_a_shared_table(make_server: Callable[..., Server]) -> None:
    server = make_server({**PATIENT, "pg_reaper.databases": "postgres, app"})
    make_lease_table(server)
    server.execute("CREATE DATABASE app TEMPLATE template0", f"ALTER DATABASE app SET pg_reaper.lease_table = '{TABLE}'")
    server.execute(
        f"CREATE TABLE {TABLE} (id integer, leader text DEFAULT '', acquired_at timestamptz DEFAULT now())",
        f"INSERT INTO {TABLE} VALUES (1, 'outside')",
        "CREATE EXTENSION pg_reaper",
        dbname="app",
    )
    wait_for(server, "standby", database="app")
    row = wait_for(server, "leader")
    assert row.term == 1 and shared_lease(server).leader == ""
    server.execute(f"UPDATE {TABLE} SET leader = ''", dbname="app")
    row = wait_for(server, "leader", database="app", timeout=AT_ONCE)
    assert row.term is None
    assert server.value(f"SELECT leader FROM {TABLE}", dbname="app") == row.leader
    assert server.value("SELECT term FROM pg_reaper_lease", dbname="app") == 0


def test_users_without_privileges_cannot_set_it(make_server: Callable[..., Server]) -> None:
    server = make_server(LONG)
    make_lease_table(server)
    leader = wait_for_reaper(server)
    server.execute("CREATE ROLE joe LOGIN", "CREATE DATABASE joes OWNER joe")
    for statement in (
        "SET pg_reaper.lease_table = 'public.mine'",
        "SELECT set_config('pg_reaper.lease_table', 'public.mine', false)",
        "ALTER DATABASE joes SET pg_reaper.lease_table = 'public.mine'",
        "ALTER ROLE joe SET pg_reaper.lease_table = 'public.mine'",
        "ALTER SYSTEM SET pg_reaper.lease_table = 'public.mine'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql SET pg_reaper.lease_table = 'public.mine' AS ''",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            server.execute(statement, user="joe", dbname="joes")
    # What a superuser sets in a session is that session's own affair.
    session = server.connect()
    session.execute("SET pg_reaper.lease_table = 'public.nowhere'")
    overdue(server, "due")
    wait_until_reaped(server, "due")
    overdue(server, "by hand")
    session.execute("SELECT pg_reaper_sweep()")
    assert barriers(server) == set()
    assert shared_lease(server).leader == leader


def test_a_sweep_by_hand_needs_no_lease(make_server: Callable[..., Server]) -> None:
    server = make_server({**LONG, "pg_reaper.enabled": "off"})
    make_lease_table(server)
    outside = OutsideReaper(server)
    outside.wait_to_acquire()
    server.set(**{"pg_reaper.enabled": "on"})
    wait_for(server, "standby")
    overdue(server, "due")
    assert server.value("SELECT pg_reaper_sweep()") == 1
    assert shared_lease(server).leader == "outside"
