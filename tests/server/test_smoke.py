"""The harness and the extension together: what every other test here takes for granted."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until


def test_the_worker_runs_and_the_extension_is_there(server: Server) -> None:
    wait_until(server.worker_pids, lambda pids: len(pids) == 1, "one worker")
    assert server.value("SELECT count(*) FROM pg_barrier_state") == 0


def test_an_orphaned_barrier_is_reaped_and_logged_by_name(server: Server) -> None:
    server.execute(
        "INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)"
        " VALUES ('smoke', 1, now() - interval '2 s', now() - interval '1 s')"
    )
    wait_until(lambda: server.value("SELECT count(*) FROM pg_barrier_state"), lambda n: n == 0, "no barrier left")
    wait_until(server.log, lambda log: 'reaped orphaned barrier "smoke"' in log, "the orphan in the log")


def test_a_server_survives_restart_reload_and_crash(server: Server) -> None:
    server.restart()
    server.set(log_checkpoints=True)
    assert server.value("SHOW log_checkpoints") == "on"
    server.set(log_checkpoints=None)
    mark = server.log_mark()
    server.crash()
    server.start()
    assert "database system was not properly shut down" in server.log_since(mark)
    wait_until(server.worker_pids, lambda pids: len(pids) == 1, "one worker after the crash")


def test_without_the_preload_there_is_no_worker(make_server: Callable[..., Server]) -> None:
    server = make_server(preload=False)
    assert server.worker_pids() == []
    assert server.value("SELECT pg_reaper_sweep()") == 0
