"""When a row is due: by its column, its ttl and its time zone. It may go late, never early."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from harness import Server
from harness.reaper import wait_for_sweep
from scenery import log
from scenery.barriers import BY_HAND
from scenery.policies import add, rows, shown, sweep, until_rows, watched, write

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]


@pytest.fixture
def by_hand(make_server: Callable[..., Server]) -> Server:
    """A server whose worker sweeps nothing."""
    return make_server(BY_HAND)


def test_the_worker_reaps_what_is_past_its_column_and_nothing_else(server: Server) -> None:
    watched(server, "jobs")
    write(server, "jobs", "dead", "deader")
    write(server, "jobs", "alive", due="1 h")
    until_rows(server, "jobs", "alive")


def test_a_ttl_is_counted_from_the_column(server: Server) -> None:
    watched(server, "jobs", ttl="1 day")
    write(server, "jobs", "old", due="-25 h")
    write(server, "jobs", "young", due="-23 h")
    until_rows(server, "jobs", "young")


def test_null_and_infinity_never_expire_and_minus_infinity_has(server: Server) -> None:
    watched(server, "plain")
    watched(server, "later", ttl="1 day")
    for table in ("plain", "later"):
        server.execute(
            f"INSERT INTO {table} VALUES ('null', NULL), ('infinity', 'infinity'), ('never was', '-infinity'),"
            " ('far', '294276-12-31 23:59:59+00'), ('long ago', '4700-01-01 BC')"
        )
        until_rows(server, table, "far", "infinity", "null")
    wait_for_sweep(server)
    assert log.warnings(server.log(), "failed") == []


@pytest.mark.parametrize("column_type", ["timestamp", "date"])
def test_local_deadlines_of_every_size_are_understood(server: Server, column_type: str) -> None:
    last = {"timestamp": "294276-12-31 23:59:59", "date": "5874897-12-31"}[column_type]
    first = {"timestamp": "4713-01-01 BC", "date": "4713-01-01 BC"}[column_type]
    for table, ttl in (("plain", None), ("later", "1 mon 1 day")):
        watched(server, table, f"id text, due {column_type}", time_zone="Europe/Berlin", ttl=ttl)
        server.execute(
            f"INSERT INTO {table} VALUES ('null', NULL), ('infinity', 'infinity'), ('never was', '-infinity'),"
            f" ('far', '{last}'), ('long ago', '{first}')"
        )
        until_rows(server, table, "far", "infinity", "null")
    wait_for_sweep(server)
    assert log.warnings(server.log(), "failed") == []


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu"])
def test_a_timestamp_is_read_in_the_time_zone_of_the_policy(by_hand: Server, zone: str) -> None:
    policy = watched(by_hand, "jobs", "id text, due timestamp", time_zone=zone)
    by_hand.query(
        "INSERT INTO jobs SELECT id, now() AT TIME ZONE %s + due"
        " FROM (VALUES ('dead', interval '-1 min'), ('alive', interval '1 min')) AS v (id, due)",
        [zone],
    )
    assert shown(by_hand, policy) == ["dead"]
    assert sweep(by_hand, policy) == 1
    assert rows(by_hand, "jobs") == ["alive"]


@pytest.mark.parametrize("ttl", [None, "3 days"])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu"])
def test_a_date_expires_at_the_end_of_its_day_there(by_hand: Server, zone: str, ttl: str | None) -> None:
    policy = watched(by_hand, "jobs", "id text, due date", time_zone=zone, ttl=ttl)
    fill = (
        "INSERT INTO jobs SELECT n, (now() AT TIME ZONE %s)::date + n - %s FROM generate_series(-3, 3) AS n"
    )
    later = 3 if ttl else 0
    before = datetime.now(ZoneInfo(zone)).date()
    by_hand.query(fill, [zone, later])
    found = shown(by_hand, policy)
    if datetime.now(ZoneInfo(zone)).date() == before:  # else midnight came by
        assert found == ["-3", "-2", "-1"]
    assert sweep(by_hand, policy) in (3, 4)


def ttl_back_to(server: Server, moment: str, zone: str) -> str:
    """The interval, in months, days and hours, that has passed there since a moment of local time."""
    return server.value("SELECT age(now() AT TIME ZONE %s, %s::timestamp)::text", [zone, moment])


def changes_of_clock(zone: str) -> list[str]:
    """The local times at which the clock there was changed in the year that has passed."""
    there, found = ZoneInfo(zone), []
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(days=5)
    for _ in range(366 * 24):
        before = hour - timedelta(hours=1)
        if hour.astimezone(there).utcoffset() != before.astimezone(there).utcoffset():
            found.append(hour.astimezone(there).strftime("%Y-%m-%d %H:%M"))
        hour = before
    return found


# By both ways of counting: forward from the row, and back from now.
BY_BOTH = (
    "SELECT id FROM jobs WHERE ((due AT TIME ZONE %(zone)s) + %(ttl)s::interval) AT TIME ZONE %(zone)s < %(now)s"
    " AND due < (%(now)s::timestamptz AT TIME ZONE %(zone)s - %(ttl)s::interval) AT TIME ZONE %(zone)s"
)


def exactly_what_is_due_goes(server: Server, policy: int, zone: str, ttl: str) -> None:
    """What the preview shows and the sweep reaps is due by both ways of counting, and all of that."""

    def due() -> set[str]:
        now = server.value("SELECT clock_timestamp()")
        return {name for (name,) in server.query(BY_BOTH, {"zone": zone, "ttl": ttl, "now": now})}  # type: ignore[arg-type]

    before = due()
    found = set(shown(server, policy))
    assert before, "the test did not arrange what it wants to see"
    assert before <= found <= due()
    everything = set(rows(server, "jobs"))
    sweep(server, policy)
    gone = everything - set(rows(server, "jobs"))
    assert found <= gone
    assert due() <= gone or due() == set()
    assert len(everything) > len(gone), "the test did not arrange what it wants to see"


@pytest.mark.parametrize("zone", ZONES)
def test_around_a_change_of_the_clock_no_row_goes_early(by_hand: Server, zone: str) -> None:
    changes = changes_of_clock(zone)
    assert len(changes) >= 2
    by_hand.execute("CREATE TABLE jobs (id text, due timestamptz)", "CREATE INDEX ON jobs (due)")
    for change in changes[:2]:
        for minutes in (-90, -30, 0, 30, 90):
            moment = by_hand.value("SELECT (%s::timestamp + %s * interval '1 min')::text", [change, minutes])
            ttl = ttl_back_to(by_hand, moment, zone)
            by_hand.query(
                "INSERT INTO jobs SELECT n, (%s::timestamp AT TIME ZONE %s) + n * interval '5 min'"
                " FROM generate_series(-50, 50) AS n",
                [change, zone],
            )
            policy = add(by_hand, "jobs", ttl=ttl, time_zone=zone)
            exactly_what_is_due_goes(by_hand, policy, zone, ttl)
            by_hand.execute(f"SELECT pg_reaper_drop_policy({policy})", "TRUNCATE jobs")


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("day", ["2026-01-29", "2026-01-30", "2026-01-31", "2026-02-28", "2026-03-01", "2024-02-29"])
def test_at_the_end_of_a_month_no_row_goes_early(by_hand: Server, day: str, zone: str | None) -> None:
    by_hand.execute("CREATE TABLE jobs (id text, due timestamptz)", "CREATE INDEX ON jobs (due)")
    by_hand.query("INSERT INTO jobs SELECT n, %s::timestamptz + n * interval '1 h' FROM generate_series(-99, 99) n", [day])
    ttl = ttl_back_to(by_hand, day, zone or "UTC")
    policy = add(by_hand, "jobs", ttl=ttl, time_zone=zone)
    exactly_what_is_due_goes(by_hand, policy, zone or "UTC", ttl)


def test_of_the_two_ways_of_counting_months_and_days_the_later_one_counts(by_hand: Server) -> None:
    # From the row, months are added first and then days; from now, they are taken off in that
    # order too, and so off other months. Such a ttl there is on every day.
    ahead, behind = (
        [
            ttl
            for (ttl,) in by_hand.query(
                "SELECT ttl::text FROM generate_series(0, 400) AS day, generate_series(1, 11) AS month,"
                " LATERAL (SELECT make_interval(months => month, days => day)) AS t (ttl)"
                f" WHERE {condition} LIMIT 2"
            )
        ]
        for condition in (
            "now() - ttl - interval '1 h' + ttl > now() + interval '1 h'",
            "now() - ttl + interval '1 h' + ttl < now() - interval '1 h'",
        )
    )
    assert ahead and behind
    by_hand.execute("CREATE TABLE jobs (id text, due timestamptz)", "CREATE INDEX ON jobs (due)")
    for ttl in ahead + behind:
        by_hand.query("INSERT INTO jobs SELECT n, now() - %s::interval + n * interval '1 h' FROM generate_series(-99, 99) n", [ttl])
        policy = add(by_hand, "jobs", ttl=ttl)
        exactly_what_is_due_goes(by_hand, policy, "UTC", ttl)
        by_hand.execute(f"SELECT pg_reaper_drop_policy({policy})", "TRUNCATE jobs")


@pytest.mark.parametrize("style", ["postgres", "postgres_verbose", "sql_standard", "iso_8601"])
def test_how_the_server_writes_intervals_changes_nothing(make_server: Callable[..., Server], style: str) -> None:
    server = make_server({"intervalstyle": style, "datestyle": "SQL, DMY", "timezone": "Asia/Kathmandu"})
    watched(server, "jobs", ttl="1 mon -1 day +02:03:04")
    write(server, "jobs", "old", due="-33 days")
    write(server, "jobs", "young", due="-24 days")
    until_rows(server, "jobs", "young")


@pytest.mark.parametrize("name", ["due", "meets", "coming", "t", "timezone", "row_to_json", "ctid_", "Odd \"name\"", "@due@"])
def test_a_column_of_any_name_can_hold_the_deadline(server: Server, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    server.execute(f"CREATE TABLE jobs (id text, {quoted} timestamptz)", f"CREATE INDEX ON jobs ({quoted})")
    policy = add(server, "jobs", name, ttl="1 h", filter=f"{quoted} IS NOT NULL", enabled=False)
    server.execute(
        "INSERT INTO jobs VALUES ('c', now() - interval '2 h'), ('a', now() - interval '3 h'), ('b', now()),"
        " ('d', now() - interval '150 min')"
    )
    # The longest overdue first.
    assert shown(server, policy) == ["a", "d", "c"]
    server.query("SELECT pg_reaper_alter_policy(%s, enabled => true)", [policy])
    until_rows(server, "jobs", "b")
    assert log.warnings(server.log(), "failed") == []


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    ("column_type", "settings"),
    [
        ("timestamptz", {"ttl": "1 month", "time_zone": "America/New_York"}),
        ("timestamptz", {"ttl": "1 day", "time_zone": "America/New_York"}),
        ("timestamp", {"time_zone": "Asia/Tokyo"}),
        ("date", {"time_zone": "Asia/Tokyo"}),
    ],
)
def test_the_first_moments_that_there_are_stop_nothing(
    by_hand: Server, column_type: str, settings: dict[str, str], index: bool
) -> None:
    # In another time zone they would be out of range.
    by_hand.execute(f"CREATE TABLE jobs (id text, due {column_type})")
    if index:
        by_hand.execute("CREATE INDEX ON jobs (due)")
    policy = add(by_hand, "jobs", **settings)
    by_hand.execute(
        "SET timezone = 'UTC'; INSERT INTO jobs VALUES ('first', '4714-11-24 BC'), ('soon after', '4714-12-30 BC'),"
        " ('never', 'infinity'), ('always', '-infinity'), ('past', '2000-01-01'), ('live', now() + interval '90 days')"
    )
    assert len(shown(by_hand, policy)) == 4
    assert sweep(by_hand, policy) == 4
    assert rows(by_hand, "jobs") == ["live", "never"]
