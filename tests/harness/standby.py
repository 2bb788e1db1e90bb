"""Standby servers: base backups of a running server that stream from it, and changes of roles."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from typing import Any

from harness import installation
from harness.server import Server
from harness.waiting import wait_until


def standby_of(primary: Server, config: Mapping[str, str] | None = None, *, name: str = "standby") -> Server:
    """A server that streams from ``primary`` under its own name, with the same configuration.

    It runs inside ``with``, like any other; ``config`` comes on top of what the primary has.
    """
    parent = installation.new_directory("pg_reaper-backup-")
    try:
        backup = parent / "data"
        installation.run("pg_basebackup", "-D", backup, "-d", primary.dsn(), "--checkpoint=fast", "--no-sync")
        (backup / "standby.signal").touch()
        return Server(
            {"primary_conninfo": f"{primary.dsn()} application_name={name}", **(config or {})},
            preload=False,  # The copied configuration says whether.
            extension=False,
            data=backup,
            name=name,
        )
    finally:
        shutil.rmtree(parent)


def in_recovery(server: Server) -> bool:
    """Whether a server is a standby still."""
    return bool(server.value("SELECT pg_is_in_recovery()"))


def catch_up(primary: Server, standby: Server) -> None:
    """Waits until the standby shows all that the primary has written so far."""
    # The commit of a mark: all that came before it is on disk with it, and so on its way.
    written = primary.value("SELECT pg_logical_emit_message(true, 'pg_reaper', 'catch up')")
    wait_until(
        lambda: standby.value("SELECT pg_last_wal_replay_lsn() - %s::pg_lsn", [written]),
        lambda behind: behind is not None and behind >= 0,
        f"{standby.name} to catch up with {primary.name}",
    )


def power_off(server: Server) -> None:
    """Ends a server as a power cut does: none of its processes says goodbye to anybody."""
    os.kill(server.pid, signal.SIGSTOP)  # or it would replace what it loses
    for pid in server.children():
        os.kill(pid, signal.SIGKILL)
    server.crash()


def promote(standby: Server) -> None:
    """Makes a primary of a standby, and returns when it is one."""
    assert standby.value("SELECT pg_promote()"), f"{standby.name} was not promoted:\n{standby.log()[-4000:]}"


def follow(old: Server, new: Server, *, rewind: bool = False) -> None:
    """Starts a server that has ended as a standby of the one that took its place.

    After anything but a clean end its history may have gone on beyond the point where
    ``new`` took over, and must be rewound to it.
    """
    if rewind:
        # PostgreSQL 15 finds the new timeline by the last checkpoint.
        new.execute("CHECKPOINT")
        own = (old.data / "postgresql.conf").read_text()
        installation.run("pg_rewind", "-D", old.data, f"--source-server={new.dsn()}", "--no-sync")
        (old.data / "postgresql.conf").write_text(own)
    (old.data / "standby.signal").touch()
    old.configure({"primary_conninfo": f"{new.dsn()} application_name={old.name}"})
    old.start()
    wait_until_streaming(new, old)


def wait_until_streaming(primary: Server, standby: Server) -> None:
    """Waits until a standby gets what is written as it is: a primary that ends cleanly then leaves nothing
    out."""
    wait_until(
        lambda: streaming(primary), lambda names: standby.name in names, f"{standby.name} to follow {primary.name}"
    )


def streaming(primary: Server) -> dict[str, Any]:
    """The standbys that stream from a server, each with how its commits are waited for."""
    query = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"
    return dict(primary.query(query))
