"""A database whose name is not ASCII: it is served, and hampers nobody in a database of another encoding."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import statuses, wait_for
from scenery.barriers import arm
from scenery.tongues import NAMES, TONGUES, Tongue

each_tongue = pytest.mark.parametrize("tongue", TONGUES[:4], ids=NAMES[:4])

# PostgreSQL keeps the name of a database as the session sent it that created it, whatever the
# encoding of the database: here, UTF-8.
NAME = "größe 表"


def create(server: Server, tongue: Tongue, name: str = NAME) -> None:
    """Makes a database of that name and encoding, with the extension."""
    server.execute(f"CREATE DATABASE \"{name}\" ENCODING '{tongue.encoding}' LOCALE 'C' TEMPLATE template0")


def reaps(server: Server, name: str) -> None:
    """Makes sure that a database has a worker that reaps."""
    # Its session says bytes as they are, since its name may be none in its encoding.
    with server.connect(name) as session:
        session.execute(
            "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
            " VALUES ('due', 1, now() - interval '1 h', now() - interval '1 s')"
        )
        left = lambda: session.execute("SELECT count(*) FROM pg_barrier_state").fetchone()  # noqa: E731
        wait_until(left, lambda row: row == (0,), "the barrier to be reaped")


def worker_of(server: Server, name: str) -> list[int]:
    """The workers that PostgreSQL says are in a database."""
    query = (
        "SELECT a.pid FROM pg_stat_get_activity(NULL) a JOIN pg_database d ON d.oid = a.datid"
        " WHERE a.backend_type = 'pg_reaper worker' AND d.datname = %s"
    )
    return [pid for (pid,) in server.query(query, [name])]


@each_tongue
def test_a_database_whose_name_is_not_ascii_has_a_worker_that_stays(server: Server, tongue: Tongue) -> None:
    create(server, tongue)
    server.execute("CREATE EXTENSION pg_reaper", dbname=NAME)
    # One that came before the extension has left again.
    reaps(server, NAME)
    (pid,) = worker_of(server, NAME)
    for _ in range(3):
        reaps(server, NAME)
    assert worker_of(server, NAME) == [pid]
    assert " ERROR: " not in server.log()
    # Every line of the log is text, whoever wrote it.
    server.logfile.read_bytes().decode()


@each_tongue
def test_the_status_tells_of_it_by_its_name(server: Server, tongue: Tongue) -> None:
    create(server, tongue)
    server.execute("CREATE EXTENSION pg_reaper", dbname=NAME)
    reaps(server, NAME)
    seen = {row.database: row for row in statuses(server)}
    assert set(seen) == {"postgres", NAME}
    assert seen[NAME].state == "leader"
    # What it writes into the lease is text there.
    with server.connect(NAME, client_encoding="UTF8" if tongue.text else "SQL_ASCII") as session:
        (leader,) = session.execute("SELECT leader FROM pg_reaper_lease").fetchone()
    leader = leader if isinstance(leader, str) else leader.decode()
    assert f"/{seen[NAME].pid}@" in leader and leader == seen[NAME].leader


@each_tongue
def test_the_extension_works_beside_a_database_whose_name_is_no_text_there(server: Server, tongue: Tongue) -> None:
    # To a database of another encoding that name is other text, or none at all.
    create(server, TONGUES[0])
    create(server, tongue, "beside")
    server.execute("CREATE EXTENSION pg_reaper", dbname=NAME)
    reaps(server, NAME)
    server.execute("CREATE EXTENSION pg_reaper", dbname="beside")
    before = wait_for(server, "leader", database="beside")
    reaps(server, "beside")
    with server.connect("beside", client_encoding=tongue.encoding) as session:
        states = session.execute("SELECT state FROM pg_reaper_status()").fetchall()
        assert [str(s) for s, in states] == ["leader"] * 3 or [s for s, in states] == [b"leader"] * 3
        assert session.execute("SELECT pg_reaper_stop()").fetchone() == (1,)
        session.execute("SELECT pg_reaper_start()")
    after = wait_for(server, "leader", database="beside")
    assert after.pid != before.pid
    assert after.errors == 0


def test_a_database_whose_name_is_no_text_in_it_is_served(server: Server) -> None:
    # Its name is given in LATIN1, which is no UTF-8, while it is of UTF-8 itself.
    latin = TONGUES[1]
    create(server, latin, "latin")
    create(server, TONGUES[0], "renamed")
    server.execute("CREATE EXTENSION pg_reaper", dbname="renamed")
    reaps(server, "renamed")
    server.execute(
        "CREATE TABLE leaders (name text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.leaders VALUES (NEW.leader); RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER UPDATE ON pg_reaper_lease FOR EACH ROW EXECUTE FUNCTION note()",
        dbname="renamed",
    )
    server.set(**{"pg_reaper.enabled": "off"})
    wait_for(server, "disabled", database="renamed")
    oid = server.value("SELECT oid FROM pg_database WHERE datname = 'renamed'")
    arm(server, "due", dbname="renamed")
    with server.connect("latin", client_encoding="LATIN1") as session:
        session.execute(b'ALTER DATABASE renamed RENAME TO "%b"' % latin.word)
    mark = server.log_mark()
    server.set(**{"pg_reaper.enabled": "on"})
    wait_until(lambda: server.log_since(mark), lambda text: 'orphaned barrier "due"' in text, "the barrier to be reaped")
    pids = "SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'pg_reaper worker' AND datid = %s"
    (pid,) = server.query(pids, [oid])
    # Whoever looks can read what the worker says of itself, and what it has written.
    (row,) = [row for row in statuses(server) if row.pid == pid[0]]
    assert (row.state, row.errors) == ("leader", 0)
    server.logfile.read_bytes().decode()
    with server.connect("latin", client_encoding="LATIN1") as session:
        session.execute(b'ALTER DATABASE "%b" RENAME TO renamed' % latin.word)
    assert any(f"/{pid[0]}@" in name for (name,) in server.query("SELECT name FROM leaders", dbname="renamed"))
    reaps(server, "renamed")


def test_a_list_of_databases_names_it(make_server: Callable[..., Server]) -> None:
    server = make_server({"pg_reaper.databases": f'postgres, "{NAME}"'})
    create(server, TONGUES[0])
    create(server, TONGUES[0], "unnamed")
    server.execute("CREATE EXTENSION pg_reaper", dbname="unnamed")
    server.execute("CREATE EXTENSION pg_reaper", dbname=NAME)
    reaps(server, NAME)
    assert {row.database for row in statuses(server)} == {"postgres", NAME}
    assert worker_of(server, "unnamed") == []
