"""``pg_reaper.databases``: which databases are allowed a worker, by name."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import AT_ONCE, wait_for
from scenery import log
from scenery.fleet import left_in, make_database, served, until_leading, until_served, until_swept, workers

ODD = ["App", "app", "a, b", 'say "hi"', "*", " blank ", "Größe"]


def unknown(server: Server, since: int = 0) -> list[str]:
    """The complaints about names that no database has."""
    message = "pg_reaper.databases names what is no database to serve: "
    return [entry.message.removeprefix(message) for entry in log.warnings(server.log_since(since), message)]


@pytest.fixture
def odd(make_server: Callable[..., Server]) -> Server:
    """A server with databases of odd names, none of them served."""
    server = make_server({"pg_reaper.databases": "postgres", "max_worker_processes": "20"})
    for name in ODD:
        server.execute(f'CREATE DATABASE "{name.replace(chr(34), 2 * chr(34))}"')
        server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper", dbname=name)
    until_leading(server, "postgres")
    assert served(server) == ["postgres"]
    return server


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("App", ["App"]),
        ("app , App", ["App", "app"]),
        ('"App",postgres', ["App", "postgres"]),
        ('"a, b"', ["a, b"]),
        ('"*"', ["*"]),
        ('"say ""hi"""', ['say "hi"']),
        ('" blank "', [" blank "]),
        ("Größe", ["Größe"]),
        ("", []),
        ("app, *", [*ODD, "postgres"]),
    ],
)
def test_names_are_taken_as_they_are_written(odd: Server, setting: str, expected: list[str]) -> None:
    odd.set(**{"pg_reaper.databases": setting})
    until_served(odd, expected, AT_ONCE)
    assert unknown(odd) == []
    until_swept(odd, *expected)


def test_a_reload_moves_the_workers_and_leaves_those_that_stay(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "one, two"}, extension=False)
    for name in ["one", "two", "three"]:
        server.execute(f"CREATE DATABASE {name}")
        server.execute("SET client_min_messages = error", "CREATE EXTENSION pg_reaper", dbname=name)
    asked = {"dbname": "one"}
    before = until_leading(server, "one", "two", **asked)
    until_served(server, ["one", "two"])
    server.set(**{"pg_reaper.databases": "two, three"})
    after = until_leading(server, "two", "three", **asked)
    until_served(server, ["three", "two"])
    assert after["two"].pid == before["two"].pid
    assert server.value("SELECT leader FROM pg_reaper_lease", dbname="one") == "", "its lease was not released"
    until_swept(server, "two", "three")
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('left', 1, now() - interval '1 h', now())",
        dbname="one",
    )
    until_swept(server, "two", "three")
    assert left_in(server, "one") == ["left"]


def test_an_unknown_name_is_told_of_once_and_again_when_it_is_another(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "postgres, typo, Other"})
    wait_until(lambda: unknown(server), bool, "the warning")
    until_leading(server, "postgres")
    # Other reloads and censuses go by.
    server.set(log_checkpoints=True)
    server.set(log_checkpoints=None)
    server.execute("CREATE DATABASE irrelevant")
    assert unknown(server) == ["typo, Other"]
    mark = server.log_mark()
    server.set(**{"pg_reaper.databases": "postgres, another"})
    wait_until(lambda: unknown(server, mark), bool, "the new warning")
    assert unknown(server, mark) == ["another"]
    server.execute("CREATE DATABASE another")
    server.execute("CREATE EXTENSION pg_reaper", dbname="another")
    wait_for(server, "leader", AT_ONCE, database="another")
    # What was put right and goes wrong again is told again.
    server.execute("DROP DATABASE another")
    wait_until(lambda: unknown(server, mark), lambda told: told == ["another", "another"], "another warning")


def test_an_extension_in_a_database_left_out_says_so_when_it_is_created(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "another"}, extension=False)
    told: list[tuple[str | None, str | None, str]] = []
    with server.connect() as session:
        session.add_notice_handler(lambda n: told.append((n.severity, n.message_primary, n.message_hint or "")))
        session.execute("CREATE EXTENSION pg_reaper")
    ((severity, message, hint),) = told
    assert (severity, message) == ("WARNING", 'pg_reaper does not serve database "postgres"')
    assert "pg_reaper.databases" in hint and "reload" in hint
    assert workers(server) == {}
    server.set(**{"pg_reaper.databases": "postgres"})
    until_leading(server, "postgres")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a,,b", "a name is missing between two commas"),
        ("a,", "a name is missing between two commas"),
        ('"a', "a quoted name is not closed"),
        ('"a" b', "something follows a quoted name"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_and_the_last_one_stays(server: Server, value: str, why: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        server.set(**{"pg_reaper.databases": value})
    assert refused.value.sqlstate == "22023"
    assert refused.value.diag.message_detail == f"The list cannot be read: {why}."
    # Written into the file by hand it is refused at the reload.
    before = wait_for(server, "leader")
    mark = server.log_mark()
    server.configure({"pg_reaper.databases": value})
    server.reload()
    wait_until(lambda: server.log_since(mark), lambda text: "invalid value for parameter" in text, "the refusal")
    assert f"The list cannot be read: {why}." in server.log_since(mark)
    assert server.value("SHOW pg_reaper.databases") == "*"
    until_swept(server, "postgres")
    assert wait_for(server, "leader").pid == before.pid
