"""What a process of ours could miss: a reload as it starts, and the death of the postmaster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness import Server, wait_until
from harness.reaper import wait_for
from scenery.barriers import BY_HAND
from scenery.policies import go, watched


def just_begun(server: Server) -> bool:
    """Whether a worker has begun, as the system sees it: in the server's own views it is not yet."""
    titles = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in server.children()]
    return any(b"pg_reaper worker" in title for title in titles)


def test_a_reload_that_comes_as_the_worker_starts_is_not_lost_on_it(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND, extension=False)
    with server.connect() as session:
        # Whoever starts waits for so long, before it knows signals.
        session.execute("ALTER SYSTEM SET post_auth_delay = 2")
        server.reload()
        session.execute("CREATE EXTENSION pg_reaper")
        wait_until(lambda: just_begun(server), description="a worker to begin")
        session.execute("ALTER SYSTEM RESET post_auth_delay")
        session.execute("ALTER SYSTEM SET pg_reaper.enabled = on")
        session.execute("SELECT pg_reload_conf()")
    wait_for(server, "leader")


def test_a_worker_that_never_rests_does_not_outlive_the_postmaster(make_server: Callable[..., Server]) -> None:
    # Work that waits for nothing, not even for a page, and lasts for longer than the crash may take.
    server = make_server({"pg_reaper.batch_size": "1", "pg_reaper.interval": "10ms", **BY_HAND})
    watched(server, "jobs")
    server.execute(
        "CREATE FUNCTION toil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM count(*) FROM generate_series(1, 5000); RETURN OLD; END $$",
        "CREATE TRIGGER toil BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION toil()",
        "INSERT INTO jobs SELECT n, now() - interval '1 h' FROM generate_series(1, 100000) AS n",
    )
    go(server)
    left = "SELECT count(*) FROM jobs"
    wait_until(lambda: server.value(left), lambda rows: rows < 99_900, "the pass to be under way")
    server.crash()
    server.start()
    assert server.value(left) > 1000
