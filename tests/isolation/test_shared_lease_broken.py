"""A shared lease table that is not there, or is not what it should be: nobody leads, until it is mended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.outside_reaper import LEASE_COLUMNS, LONG, TABLE, make_lease_table
from harness.reaper import barriers, overdue, status, wait_for, wait_for_cycles, wait_until_reaped
from scenery import log

DROP = f"DROP TABLE {TABLE}"

# What the table may be in place of a lease: how it comes to be so, and how it is mended.
NO_LEASE = {
    "no leader": (f"ALTER TABLE {TABLE} RENAME leader TO boss", f"ALTER TABLE {TABLE} RENAME boss TO leader"),
    "no stamp": (
        f"ALTER TABLE {TABLE} RENAME acquired_at TO seen_at", f"ALTER TABLE {TABLE} RENAME seen_at TO acquired_at",
    ),
    "a leader that is no text": (
        f"ALTER TABLE {TABLE} ALTER leader DROP DEFAULT, ALTER leader TYPE integer USING 0",
        f"ALTER TABLE {TABLE} ALTER leader TYPE text USING ''",
    ),
    "a stamp without a time zone": (
        f"ALTER TABLE {TABLE} ALTER acquired_at TYPE timestamp", f"ALTER TABLE {TABLE} ALTER acquired_at TYPE timestamptz",
    ),
    "a view": (
        f"ALTER TABLE {TABLE} RENAME TO under; CREATE VIEW {TABLE} AS SELECT * FROM public.under",
        f"DROP VIEW {TABLE}; ALTER TABLE public.under RENAME TO pg_orchestrator_lock",
    ),
    "a partitioned table": (
        f"{DROP}; CREATE TABLE {TABLE} ({LEASE_COLUMNS}) PARTITION BY LIST (id)",
        f"{DROP}; CREATE TABLE {TABLE} ({LEASE_COLUMNS}); INSERT INTO {TABLE} VALUES (1)",
    ),
}  # fmt: skip

NO_ROW = {
    "no table": (DROP, f"CREATE TABLE {TABLE} ({LEASE_COLUMNS}); INSERT INTO {TABLE} VALUES (1)"),
    "another name": (
        f"ALTER TABLE {TABLE} RENAME TO elsewhere",
        f"ALTER TABLE public.elsewhere RENAME TO pg_orchestrator_lock; UPDATE {TABLE} SET leader = ''",
    ),
    "no row": (f"DELETE FROM {TABLE}", f"INSERT INTO {TABLE} (id) VALUES (1)"),
    "two rows": (f"INSERT INTO {TABLE} (id) VALUES (2)", f"DELETE FROM {TABLE} WHERE id = 2"),
}


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Its worker is idle until it is enabled."""
    server = make_server({**LONG, "pg_reaper.lease_duration": "4s", "pg_reaper.enabled": "off"})
    make_lease_table(server)
    return server


def enable(server: Server) -> None:
    server.set(**{"pg_reaper.enabled": "on"})


def complaint(server: Server) -> log.Entry:
    """What the worker says of the shared lease, with the remedy; it names the table."""
    found = wait_until(
        lambda: [entry for entry in log.warnings(server.log()) if "lease" in entry.message and entry.hint],
        bool,
        "a complaint with a hint",
    )
    return found[-1]


def assert_nothing_is_reaped(server: Server) -> None:
    overdue(server, "due")
    wait_for(server, "standby")
    before = status(server).last_cycle
    wait_until(lambda: status(server).last_cycle, lambda now: now > before, "the worker to turn a cycle")
    assert barriers(server) == {"due"}
    assert status(server).state == "standby"


@pytest.mark.parametrize(("change", "mend"), NO_LEASE.values(), ids=NO_LEASE.keys())
def test_a_table_that_is_no_lease_is_refused_by_name_and_taken_up_once_it_is_mended(
    server: Server, change: str, mend: str
) -> None:
    server.execute(change)
    enable(server)
    assert_nothing_is_reaped(server)
    said = complaint(server)
    assert f"{TABLE} cannot hold the lease of pg_reaper" in said.message
    assert "pg_reaper.lease_table" in said.hint and "acquired_at" in said.hint
    assert f"{TABLE} cannot hold the lease" in status(server).last_error
    server.execute(mend)
    server.set(**{"pg_reaper.log_limit": "99"})  # A reload tries at once what is put off.
    wait_until_reaped(server, "due")


@pytest.mark.parametrize("at_start", [True, False], ids=["from the start", "under a leader"])
@pytest.mark.parametrize(("change", "mend"), NO_ROW.values(), ids=NO_ROW.keys())
def test_without_the_one_row_nobody_leads_until_it_is_there(
    server: Server, change: str, mend: str, at_start: bool
) -> None:
    if at_start:
        server.execute(change)
        enable(server)
    else:
        enable(server)
        wait_for(server, "leader")
        server.execute(change)
    assert_nothing_is_reaped(server)
    server.execute(mend)
    wait_until_reaped(server, "due")
    wait_for(server, "leader")
    assert status(server).errors == 0


@pytest.mark.parametrize(("change", "mend"), NO_ROW.values(), ids=NO_ROW.keys())
def test_the_complaint_names_the_table_and_the_remedy(server: Server, change: str, mend: str) -> None:
    server.execute(change)
    enable(server)
    said = complaint(server)
    assert TABLE in said.message + said.hint, f"which table? {said.message} {said.hint}"


def test_it_says_so_once_and_once_that_all_is_well(server: Server) -> None:
    server.execute(f"DELETE FROM {TABLE}")
    enable(server)
    wait_for_cycles(server, 8)
    assert len(log.warnings(server.log(), "lease")) == 1
    server.execute(f"INSERT INTO {TABLE} (id) VALUES (1)")
    wait_for(server, "leader")
    assert len(log.warnings(server.log(), "lease")) == 1
    assert "the lease is whole again" in server.log()


def test_a_row_of_anothers_table_is_never_put_back(server: Server) -> None:
    server.execute(f"DELETE FROM {TABLE}")
    enable(server)
    wait_for_cycles(server, 5)
    assert server.value(f"SELECT count(*) FROM {TABLE}") == 0
