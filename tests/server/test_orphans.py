"""What the log says of each orphan, and that no id can make it say anything else."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import until_counted
from scenery import log
from scenery.barriers import BY_HAND, adopted, arm, arm_many, count, status, until_empty


def until_logged(server: Server, orphans: int) -> None:
    """Waits until so many orphans have a line of their own."""
    wait_until(lambda: len(log.orphans(server.log())), lambda n: n == orphans, f"{orphans} orphans in the log")


@pytest.mark.parametrize(
    ("remaining", "reason"),
    [
        (3, "tasks never completed"),
        (0, "all tasks done, but the callback never fired"),
        (-7, "torn down already"),
    ],
)
def test_each_orphan_is_logged_with_all_that_an_operator_asks(server: Server, remaining: int, reason: str) -> None:
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, organization_id, remaining, created_at, expires_at)"
        f" VALUES ('run-1', 'acme', {remaining}, '-infinity', now() - interval '90 s')"
    )
    until_logged(server, 1)
    message, record = log.orphans(server.log())["run-1"]
    found = re.fullmatch(
        r'reaped orphaned barrier "run-1" \(organization "acme", remaining (-?\d+)\): ([\d.]+) s past its deadline, (.*)',
        message,
    )
    assert found, message
    assert (int(found[1]), found[3]) == (remaining, reason)
    # Past its deadline by a minute and a half, not by seconds or hours.
    assert 90 <= float(found[2]) < 150
    assert 90_000 <= record.pop("lateness_ms") < 150_000
    deadline = server.value("SELECT now() - %s::timestamptz", [record.pop("deadline")])
    assert 90 <= deadline.total_seconds() < 150
    assert record == {
        "policy": 1,
        "relation": "public.pg_barrier_state",
        "execution_id": "run-1",
        "organization_id": "acme",
        "remaining": remaining,
        "reason": reason,
        "rule": "expired",
    }


def test_past_the_limit_one_line_says_how_many_more(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.log_limit": "5", "pg_reaper.batch_size": "3", **BY_HAND})
    arm_many(server, 1000, "now() - n * interval '1 s'")
    server.set(**{"pg_reaper.enabled": "on"})
    rest = wait_until(lambda: log.warnings(server.log(), "more orphaned barriers"), bool, "the summary")
    assert [entry.message for entry in rest] == [
        "reaped 995 more orphaned barriers of public.pg_barrier_state, 1000 in this pass"
    ]
    assert len(log.orphans(server.log())) == 5
    until_counted(server, 1000)


def test_with_a_limit_of_zero_only_the_sum_is_logged(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.log_limit": "0", **BY_HAND})
    arm_many(server, 30, "now() - n * interval '1 s'")
    server.set(**{"pg_reaper.enabled": "on"})
    said = wait_until(lambda: log.warnings(server.log(), "orphaned barriers of"), bool, "the summary")
    assert [entry.message for entry in said] == [
        "reaped 30 orphaned barriers of public.pg_barrier_state, 30 in this pass"
    ]
    assert log.orphans(server.log()) == {}


EVIL = [
    "a\n2026-01-01 00:00:00.000 UTC [1] WARNING:  reaped orphaned barrier forged",
    "a\r\n2026-01-01 00:00:00.000 UTC [1] FATAL:  forged",
    "a\r2026-01-01 00:00:00.000 UTC [1] WARNING:  forged",
    "\x1b[2J\x1b[1;31mforged",
    "\x9b31mforged",
    'forged" (organization "other", remaining 1): 0.000 s past its deadline',
    "forged \\ \\n \\\"",
    "\x85forged",
    "\u2028forged",
    "\u202eforged",
    "\x7f\x01\x08forged",
    "%s%n%m forged",
    "",
]


def test_no_id_or_organization_can_forge_a_line_or_reach_a_terminal(server: Server) -> None:
    with server.connect() as session:
        session.cursor().executemany(
            "INSERT INTO pg_barrier_state (execution_id, organization_id, remaining, created_at, expires_at)"
            " VALUES (%s, %s, 1, '-infinity', now())",
            [(text, text) for text in EVIL],
        )
    until_empty(server)
    until_logged(server, len(EVIL))
    said = server.log()

    # What was meant is still told, exactly.
    orphans = log.orphans(said)
    assert set(orphans) == set(EVIL)
    assert all(record["organization_id"] == id for id, (_, record) in orphans.items())

    # Whatever a reader takes for the end of a line, no line begins with what an id says.
    worker = status(server)["pid"]
    for line in said.splitlines():
        assert not line.startswith(("forged", "2026-01-01")), line
    assert {entry.pid for entry in log.warnings(said)} == {worker}
    control = [c for c in said if (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    assert control == []
    assert not re.search("[\u2028\u2029\u202a-\u202e\u2066-\u2069]", said)


def test_a_very_long_id_is_reaped_and_logged_whole(server: Server) -> None:
    adopted(server, "public.jobs", "execution_id text, organization_id text, remaining int, expires_at timestamptz")
    server.query("INSERT INTO jobs VALUES (%s, %s, 1, now())", ["x" * 100_000, "\n" * 100_000])
    until_empty(server, "public.jobs")
    until_logged(server, 1)
    ((_, record),) = log.orphans(server.log()).values()
    assert (len(record["execution_id"]), len(record["organization_id"])) == (100_000, 100_000)
    assert status(server)["errors"] == 0


def test_what_was_rolled_back_is_not_logged_as_reaped(server: Server) -> None:
    server.set(**{"pg_reaper.quarantine_limit": 0})
    server.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$",
        "CREATE CONSTRAINT TRIGGER refuse AFTER DELETE ON pg_barrier_state"
        " FOR EACH ROW WHEN (OLD.organization_id = 'refused') EXECUTE FUNCTION refuse()",
        "INSERT INTO pg_barrier_state (execution_id, organization_id, remaining, created_at, expires_at)"
        " VALUES ('kept', 'refused', 1, '-infinity', now()), ('with it', '', 1, '-infinity', now())",
    )
    wait_until(
        lambda: log.failures(server.log(), "public.pg_barrier_state"), lambda f: len(f) >= 3, "the batch to fail thrice"
    )
    assert log.orphans(server.log()) == {}
    assert status(server)["rows_reaped"] == 0
    server.execute("DROP TRIGGER refuse ON pg_barrier_state")
    until_logged(server, 2)
    assert set(log.orphans(server.log())) == {"kept", "with it"}


def test_what_a_trigger_kept_is_not_logged_as_reaped(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON pg_barrier_state"
        " FOR EACH ROW WHEN (OLD.execution_id = 'kept') EXECUTE FUNCTION keep()",
    )
    arm(server, "kept", "gone")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: count(server), lambda n: n == 1, "the other row to go")
    until_logged(server, 1)
    assert list(log.orphans(server.log())) == ["gone"]
    until_counted(server, 1)


def test_rows_reaped_before_a_batch_fails_are_in_the_sums_all_the_same(make_server: Callable[..., Server]) -> None:
    server = make_server(
        {"pg_reaper.log_limit": "2", "pg_reaper.batch_size": "1", "pg_reaper.quarantine_limit": "0", **BY_HAND}
    )
    server.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON pg_barrier_state"
        " FOR EACH ROW WHEN (OLD.execution_id = 'b1') EXECUTE FUNCTION refuse()",
    )
    # b1 expired last: the nine others are reaped and committed before it fails.
    arm_many(server, 10, "now() - n * interval '1 min'")
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: log.failures(server.log(), "public.pg_barrier_state"), bool, "the failure")
    assert count(server) == 1
    summary = wait_until(lambda: log.warnings(server.log(), "orphaned barriers of"), bool, "the sum", timeout=10)
    said = [entry.message for entry in summary]
    assert said == ["reaped 7 more orphaned barriers of public.pg_barrier_state, 9 in this pass"]


def test_the_function_tells_its_caller_and_the_log_the_same(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    arm(server, "told")
    notices: list[str] = []
    with server.connect() as session:
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        session.execute("SELECT pg_reaper_sweep()")
    assert [n.partition(":")[0] for n in notices] == [
        'reaped orphaned barrier "told" (organization "", remaining 1)'
    ]
    assert [message for message, _ in log.orphans(server.log()).values()] == notices
