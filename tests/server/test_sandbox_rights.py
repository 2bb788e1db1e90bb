"""A sweep has the rights of the table's owner: no more, and no fewer than it needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from scenery import log, mallory
from scenery.barriers import BY_HAND, arm, count, ids, until_empty, until_left
from scenery.mallory import SWEEPERS


@pytest.fixture
def hers(make_server: Callable[..., Server]) -> Server:
    """A server where Mallory's table is watched, and nobody sweeps yet."""
    server = make_server(BY_HAND)
    mallory.moves_in(server)
    return server


@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_row_security_forced_upon_the_owner_hides_no_row_from_the_sweep(
    hers: Server, sweeper: Callable[[Server], None]
) -> None:
    hers.execute(
        "ALTER TABLE hers.jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE POLICY nobody ON hers.jobs USING (false)",
    )
    mallory.orphan(hers)
    # Or the test would prove nothing: to her the row is hidden.
    assert count(hers, mallory.TABLE, user="mallory") == 0
    sweeper(hers)
    until_empty(hers, mallory.TABLE)


@pytest.mark.parametrize("sweeper", SWEEPERS)
@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ("REVOKE ALL ON hers.jobs FROM mallory", "GRANT ALL ON hers.jobs TO mallory"),
        ("REVOKE DELETE ON hers.jobs FROM mallory", "GRANT DELETE ON hers.jobs TO mallory"),
        ("ALTER SCHEMA hers OWNER TO postgres", "GRANT USAGE ON SCHEMA hers TO mallory"),
    ],
)
def test_an_owner_without_rights_on_her_own_table_is_reported_and_hurts_nobody_else(
    hers: Server, sweeper: Callable[[Server], None], taken: str, given: str
) -> None:
    hers.execute(taken)
    mallory.orphan(hers)
    arm(hers, "innocent")
    sweeper(hers)
    (failure, *_) = wait_until(lambda: log.failures(hers.log(), "hers.jobs"), bool, "the report")
    assert failure.detail.startswith("SQLSTATE 42501")
    assert "permission denied" in failure.message
    assert "owner" in failure.hint
    assert count(hers, mallory.TABLE) == 1
    if sweeper is not mallory.by_superuser_as_mallory:  # who passes over what is not hers
        until_left(hers, [])

    hers.execute(given)
    if sweeper is not mallory.by_worker:
        sweeper(hers)
    until_empty(hers, mallory.TABLE)


def test_a_table_of_an_owner_who_may_not_log_in_is_swept(hers: Server) -> None:
    hers.execute("ALTER ROLE mallory NOLOGIN CONNECTION LIMIT 0", "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    mallory.orphan(hers)
    mallory.by_worker(hers)
    until_empty(hers, mallory.TABLE)


def test_a_trigger_runs_as_the_owner_of_today(hers: Server) -> None:
    mallory.trigger(hers, "INSERT INTO hers.diary VALUES ('', current_user, '');")
    hers.execute(
        "CREATE ROLE trent",
        "GRANT USAGE ON SCHEMA hers TO trent",
        "GRANT INSERT ON hers.diary TO trent",
        "ALTER TABLE hers.jobs OWNER TO trent",
    )
    mallory.orphan(hers)
    mallory.by_worker(hers)
    until_empty(hers, mallory.TABLE)
    assert [who for _, who, _ in mallory.diary(hers)] == ["trent"]


def test_a_partition_is_swept_as_its_own_owner(hers: Server) -> None:
    hers.execute(
        "CREATE TABLE parent (LIKE pg_barrier_state) PARTITION BY LIST (organization_id)",
        "CREATE TABLE hers.leaf PARTITION OF parent DEFAULT",
        "ALTER TABLE hers.leaf OWNER TO mallory",
        "SELECT pg_reaper_adopt('parent')",
    )
    mallory.trigger(hers, mallory.tries("PERFORM * FROM public.secret"), table="hers.leaf")
    hers.execute(
        "INSERT INTO parent VALUES ('x', '', 1, '[]', now(), now(), now())",
    )
    mallory.by_worker(hers)
    wait_until(lambda: count(hers, "parent"), lambda n: n == 0, "the row to be reaped")
    ((note, who, _),) = mallory.diary(hers)
    assert (note[:5], who) == ("42501", "mallory")


def test_the_owner_who_sweeps_her_own_table_needs_no_sandbox(hers: Server) -> None:
    # Her session is hers already; what she may do there, her trigger may.
    mallory.trigger(hers, "CREATE TEMP TABLE scratch ();")
    mallory.orphan(hers)
    with hers.connect(user="mallory") as session:
        assert session.execute("SELECT pg_reaper_sweep('hers.jobs')").fetchone() == (1,)
    assert ids(hers, mallory.TABLE) == []
