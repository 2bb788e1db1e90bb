"""Each setting by itself: what it refuses, by name, and where it may be set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import status, wait_for, wait_for_cycles

# Below the least, above the most, and no value at all.
REFUSED = {
    "enabled": ["", "2", "perhaps"],
    "leadership": ["", "0", "row", "lease,advisory"],
    "interval": ["0", "-1", "9ms", "3600001ms", "2h", "soon", "5 parsecs", "", "99999999999999999999"],
    "lease_duration": ["0", "-10s", "99ms", "25h", "long", ""],
    "stuck_timeout": ["-1", "2147483648", "never", ""],
    "batch_size": ["0", "-1", "100001", "all", "1s", ""],
    "lock_timeout": ["0", "-1", "3600001ms", "never", ""],
    "statement_timeout": ["-1", "3600001ms", "never", ""],
    "duty_cycle": ["0", "101", "half", ""],
    "log_limit": ["-1", "1000001", "all", ""],
    "quarantine_limit": ["-1", "1000001", "all", ""],
    "max_clock_jump": ["-1", "604800001ms", "8d", "far", ""],
    "startup_grace": ["-2", "-1s", "25h", "long", ""],
}

# What makes sense for one database alone, and what is the whole server's.
OF_A_DATABASE = [
    "lease_table", "stuck_timeout", "batch_size", "duty_cycle", "lock_timeout", "statement_timeout", "log_limit",
    "quarantine_limit",
]  # fmt: skip
OF_THE_SERVER = ["enabled", "databases", "leadership", "interval", "lease_duration", "max_clock_jump", "startup_grace"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with Server({"pg_reaper.interval": "100ms", "pg_reaper.lease_duration": "2s"}) as server:
        yield server


@pytest.mark.parametrize("setting, value", [(s, v) for s, values in REFUSED.items() for v in values])
def test_a_bad_value_is_refused_by_name(shared: Server, setting: str, value: str) -> None:
    with pytest.raises(psycopg.Error) as refusal:
        shared.set(**{f"pg_reaper.{setting}": value})
    assert f'"pg_reaper.{setting}"' in str(refusal.value)
    assert refusal.value.sqlstate == "22023"


def test_every_setting_is_listed_above(shared: Server) -> None:
    names = {name for (name,) in shared.query("SELECT name FROM pg_settings WHERE name LIKE 'pg\\_reaper.%'")}
    assert names == {f"pg_reaper.{setting}" for setting in OF_A_DATABASE + OF_THE_SERVER}
    # Any text may be the name of a table that is made later.
    assert set(REFUSED) | {"databases", "lease_table"} == set(OF_A_DATABASE + OF_THE_SERVER)


def test_every_setting_says_what_it_means(shared: Server) -> None:
    rows = shared.query("SELECT name, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'pg\\_reaper.%'")
    assert all(short and short.endswith(".") and extra and extra.endswith(".") for _, short, extra in rows), rows


@pytest.mark.parametrize("statement", ["SET pg_reaper.intervall = '1s'", "ALTER SYSTEM SET pg_reaper.foo = 1"])
def test_a_misspelt_setting_is_refused_in_a_session(shared: Server, statement: str) -> None:
    with pytest.raises(psycopg.Error, match="pg_reaper"):
        shared.execute(statement)


@pytest.mark.parametrize("setting", OF_THE_SERVER)
def test_a_setting_of_the_server_cannot_be_set_for_a_database(shared: Server, setting: str) -> None:
    value = shared.value("SELECT current_setting(%s)", [f"pg_reaper.{setting}"])
    with pytest.raises(psycopg.errors.CantChangeRuntimeParam):
        shared.execute(f"ALTER DATABASE postgres SET pg_reaper.{setting} = '{value}'")


@pytest.mark.parametrize("setting", OF_A_DATABASE)
def test_a_setting_of_a_database_is_no_business_of_an_ordinary_role(shared: Server, setting: str) -> None:
    shared.execute("DROP ROLE IF EXISTS anybody", "CREATE ROLE anybody LOGIN")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shared.execute(f"SET pg_reaper.{setting} = 1", user="anybody")


def test_a_bad_value_in_the_file_is_named_in_the_log_and_the_old_one_stays(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"pg_reaper.batch_size": "7"})
    before = wait_for(server, "leader")
    mark = server.log_mark()
    server.configure({"pg_reaper.batch_size": "0", "pg_reaper.interval": "soon", "pg_reaper.log_limit": "3"})
    server.reload()
    wait_until(lambda: server.log_since(mark), lambda log: "pg_reaper.interval" in log, "the log to name it")
    assert "pg_reaper.batch_size" in server.log_since(mark)
    wait_for_cycles(server)
    assert server.value("SHOW pg_reaper.batch_size") == "7"
    assert server.value("SHOW pg_reaper.interval") == "100ms"
    assert (status(server).pid, status(server).state) == (before.pid, "leader")
