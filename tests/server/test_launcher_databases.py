"""Which databases have a worker: all that have the extension, but templates and closed ones."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from harness.reaper import status, status_if_any, statuses, wait_for
from scenery.fleet import make_database, until_leading, until_served, until_swept, workers


def test_each_database_with_the_extension_has_a_worker_and_is_swept(server: Server) -> None:
    server.execute("CREATE DATABASE bare")
    names = ["postgres", "one", "two", "Three's a crowd"]
    for name in names[1:]:
        make_database(server, name)
    rows = until_leading(server, *names)
    assert len({row.pid for row in rows.values()}) == len(names)
    assert len({row.leader for row in rows.values()}) == len(names)
    until_served(server, names)
    until_swept(server, *names)
    # Each counts its own.
    for name in names:
        wait_until(lambda name=name: status(server, name).rows_reaped, lambda n: n == 1, f"{name} to be counted")


def test_all_are_back_after_a_restart(server: Server) -> None:
    for name in ["one", "two"]:
        make_database(server, name)
    until_leading(server, "one", "two", "postgres")
    server.restart()
    rows = until_leading(server, "one", "two", "postgres")
    assert {row.term for row in rows.values()} == {2}
    until_swept(server, "one", "two", "postgres")


def test_dropping_the_extension_ends_the_worker_of_that_database_alone(server: Server) -> None:
    make_database(server, "other")
    before = until_leading(server, "other", "postgres")
    server.execute("DROP EXTENSION pg_reaper", dbname="other")
    until_served(server, ["postgres"])
    wait_until(lambda: status_if_any(server, "other"), lambda row: row is None, "nothing to be told of it")
    assert status(server).pid == before["postgres"].pid


def test_a_copy_of_a_database_with_the_extension_is_found(server: Server) -> None:
    make_database(server, "original")
    until_leading(server, "original")
    server.execute("CREATE DATABASE copy TEMPLATE original")
    rows = until_leading(server, "original", "copy", "postgres")
    # The lease came with the copy, and names somebody who does not lead there.
    assert rows["copy"].leader != rows["original"].leader
    until_swept(server, "original", "copy")


def test_a_database_made_from_a_template_with_the_extension_is_found(server: Server) -> None:
    make_database(server, "mould", options="IS_TEMPLATE true")
    until_leading(server, "postgres")
    server.execute("CREATE DATABASE cast_from_it TEMPLATE mould")
    until_leading(server, "cast_from_it")
    until_swept(server, "cast_from_it")
    until_served(server, ["cast_from_it", "postgres"])
    assert "mould" not in {row.database for row in statuses(server)}


def test_a_template_is_left_alone_even_when_the_list_names_it(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": "mould, postgres"})
    notices: list[str] = []
    server.execute("CREATE DATABASE mould IS_TEMPLATE true")
    with server.connect("mould") as session:
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        session.execute("CREATE EXTENSION pg_reaper")
    assert notices == ['pg_reaper does not serve database "mould"']
    # Whoever was made later and is served shows that the template was passed over.
    server.set(**{"pg_reaper.databases": "mould, postgres, later"})
    make_database(server, "later")
    until_leading(server, "later", "postgres")
    until_served(server, ["later", "postgres"])


def test_a_database_that_becomes_a_template_loses_its_worker_until_it_is_none_any_more(server: Server) -> None:
    make_database(server, "mould")
    until_leading(server, "mould", "postgres")
    server.execute("ALTER DATABASE mould IS_TEMPLATE true")
    until_served(server, ["postgres"])
    lease = "SELECT leader FROM pg_reaper_lease"
    assert server.value(lease, dbname="mould") == "", "the lease was not released"
    server.execute("ALTER DATABASE mould IS_TEMPLATE false")
    until_leading(server, "mould")
    until_swept(server, "mould")


def test_a_database_that_is_closed_loses_its_worker_until_it_is_opened(server: Server) -> None:
    make_database(server, "closed")
    first = until_leading(server, "closed", "postgres")
    mark = server.log_mark()
    server.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    until_served(server, ["postgres"])
    assert (status(server, "closed").state, status(server, "closed").pid) == ("down", None)
    # Nobody knocks at the door: the next census and turn pass without an attempt.
    make_database(server, "later")
    until_leading(server, "later")
    assert "not currently accepting connections" not in server.log_since(mark)
    server.execute("ALTER DATABASE closed ALLOW_CONNECTIONS true")
    row = wait_for(server, "leader", database="closed")
    assert row.pid != first["closed"].pid
    until_swept(server, "closed")
    assert len(workers(server, "postgres")) == 1


def test_a_database_made_closed_is_served_once_it_is_opened(server: Server) -> None:
    make_database(server, "original")
    until_leading(server, "original", "postgres")
    server.execute("CREATE DATABASE closed TEMPLATE original ALLOW_CONNECTIONS false")
    make_database(server, "later")
    until_leading(server, "later", "original")
    until_served(server, ["later", "original", "postgres"])
    server.execute("ALTER DATABASE closed ALLOW_CONNECTIONS true")
    until_leading(server, "closed")


def test_what_is_told_of_a_dropped_database_goes_with_it(server: Server) -> None:
    make_database(server, "gone")
    until_leading(server, "gone", "postgres")
    server.execute("DROP DATABASE gone")
    wait_until(
        lambda: [row.database for row in statuses(server)], lambda told: told == ["postgres"], "the row to be gone"
    )
    assert "gone" not in server.log().rpartition("released term")[2], "somebody tried to serve it again"
