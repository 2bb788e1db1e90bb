"""Row security hides no row from a sweep, whoever runs it: what is due goes, and nothing is passed over in silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from scenery import log, mallory
from scenery.barriers import BY_HAND, arm, ids, until_left

POLICIES = {
    "that shows nothing": "CREATE POLICY p ON hers.jobs USING (false)",
    "that takes away what another shows": (
        "CREATE POLICY p ON hers.jobs USING (true); CREATE POLICY q ON hers.jobs AS RESTRICTIVE USING (false)"
    ),
    "that allows reading and no deleting": "CREATE POLICY p ON hers.jobs FOR SELECT USING (true)",
    "that shows the live ones": "CREATE POLICY p ON hers.jobs USING (expires_at > now())",
    "that raises an error": "CREATE POLICY p ON hers.jobs USING (1 / (remaining - remaining) = 1)",
}


def swept(server: Server, call: str, user: str = "postgres", row_security: str = "on") -> int:
    """What a sweep by hand returns."""
    with server.connect(user=user, options=f"-c row_security={row_security}") as session:
        return session.execute(f"SELECT {call}").fetchone()[0]


def by_worker(server: Server) -> None:
    mallory.by_worker(server)


def by_superuser(server: Server) -> None:
    assert swept(server, "pg_reaper_sweep()") == 2


def by_superuser_without_row_security(server: Server) -> None:
    assert swept(server, "pg_reaper_sweep()", row_security="off") == 2


def by_owner(server: Server) -> None:
    assert swept(server, "pg_reaper_sweep('hers.jobs')", "mallory") == 2


def by_owner_without_row_security(server: Server) -> None:
    assert swept(server, "pg_reaper_sweep('hers.jobs')", "mallory", "off") == 2


def by_member(server: Server) -> None:
    assert swept(server, "pg_reaper_sweep('hers.jobs')", "friend") == 2


def by_member_without_row_security(server: Server) -> None:
    assert swept(server, "pg_reaper_sweep('hers.jobs')", "friend", "off") == 2


SWEEPERS = [
    by_worker, by_superuser, by_superuser_without_row_security, by_owner, by_owner_without_row_security,
    by_member, by_member_without_row_security,
]  # fmt: skip
each_sweeper = pytest.mark.parametrize("sweeper", SWEEPERS, ids=lambda f: f.__name__)


@pytest.fixture
def hers(make_server: Callable[..., Server]) -> Server:
    """Mallory's table, which she has made hide its rows from herself, and a friend with her rights."""
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    server.execute(
        "CREATE ROLE friend LOGIN IN ROLE mallory",
        "GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO friend",
        "ALTER TABLE hers.jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    )
    arm(server, "due 1", "due 2", table=mallory.TABLE)
    arm(server, "live", due="1 h", table=mallory.TABLE)
    return server


@each_sweeper
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_no_policy_hides_a_row_from_a_sweep(hers: Server, sweeper: Callable[[Server], None], policy: str) -> None:
    hers.execute(policy)
    sweeper(hers)
    until_left(hers, ["live"], mallory.TABLE)
    told = wait_until(lambda: log.orphans(hers.log()), lambda told: len(told) == 2, "both to be told of")
    assert set(told) == {"due 1", "due 2"}
    assert log.failures(hers.log(), "hers.jobs") == []


@each_sweeper
def test_no_policy_hides_a_row_without_progress(hers: Server, sweeper: Callable[[Server], None]) -> None:
    hers.execute(
        "CREATE POLICY p ON hers.jobs USING (false)",
        "UPDATE hers.jobs SET expires_at = now() + interval '1 h', last_progress_at = now() - interval '1 day'"
        " WHERE execution_id LIKE 'due%'",
    )
    hers.set(**{"pg_reaper.stuck_timeout": "1h"})
    sweeper(hers)
    until_left(hers, ["live"], mallory.TABLE)


@each_sweeper
def test_what_a_key_cascades_to_is_not_hidden_either(hers: Server, sweeper: Callable[[Server], None]) -> None:
    hers.execute(
        "CREATE TABLE hers.parts (job text REFERENCES hers.jobs ON DELETE CASCADE)",
        "ALTER TABLE hers.parts OWNER TO mallory",
        "INSERT INTO hers.parts VALUES ('due 1'), ('due 1'), ('live')",
        "ALTER TABLE hers.parts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE POLICY p ON hers.parts USING (false)",
        "CREATE POLICY p ON hers.jobs USING (false)",
    )
    sweeper(hers)
    until_left(hers, ["live"], mallory.TABLE)
    assert hers.query("SELECT job FROM hers.parts") == [("live",)]


def test_row_security_on_the_tables_of_the_extension_hides_nothing_from_the_worker(hers: Server) -> None:
    tables = ("pg_barrier_state", "pg_reaper_policy", "pg_reaper_lease")
    hers.execute(
        *(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY" for table in tables),
        *(f"CREATE POLICY p ON {table} USING (false)" for table in tables),
    )
    arm(hers, "due")
    by_worker(hers)
    until_left(hers, ["live"], mallory.TABLE)
    until_left(hers, [])
    assert ids(hers, mallory.TABLE) == ["live"]
