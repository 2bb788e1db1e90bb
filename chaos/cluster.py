"""A primary and its standby server, which change places."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from harness import Server, installation, wait_until

# However busy the machine: past this, a server hangs.
PATIENCE = 60.0


class Cluster:
    """Two servers. ``epoch`` counts the primaries; see ``ledger``."""

    def __init__(self, config: dict[str, str]) -> None:
        self.config = config
        self.epoch = 1
        self.primary = Server(config, extension=False, name="epoch 1")
        self.standby: Server | None = None
        self.cut: set[int] = set()
        # Every server that has been a primary, by epoch; its log outlives it.
        self.servers = {1: self.primary}
        self._made = 1
        self._backup: subprocess.Popen[str] | None = None
        self._builder: threading.Thread | None = None
        self._closing = False

    def start(self) -> None:
        """Starts the first primary."""
        self.primary.start()

    def connect(self, database: str, who: str, **kwargs: Any) -> tuple[psycopg.Connection[Any], int]:
        """A session with the present primary, and that primary's epoch."""
        server, epoch = self.primary, self.epoch
        if server is not self.servers[epoch]:
            raise psycopg.OperationalError("the primary is just changing")
        # A client, too, would rather notice a hung server than hang with it.
        options = f"-c chaos.who={who}"
        connection = psycopg.connect(
            **server.address(database), autocommit=True, options=options, connect_timeout=5, **kwargs
        )
        return connection, epoch

    def build_standby(self) -> None:
        """Begins to copy the primary into a new standby server; ``standby_ready`` says when it is one."""
        self._builder = threading.Thread(target=self._build, daemon=True, name="standby")
        self._builder.start()

    def wait_for_standby(self, timeout: float) -> bool:
        """Waits until there is a standby server; whether there is."""
        if self._builder is not None:
            self._builder.join(timeout)
        return self.standby is not None

    def _build(self) -> None:
        while not self._closing:
            directory = installation.new_directory("pg_reaper-chaos-backup-")
            try:
                self._copy(directory / "data")
                self.standby = self._standby_of(directory / "data")
                return
            except (RuntimeError, AssertionError, OSError, psycopg.Error):
                time.sleep(0.2)  # the primary is down; the next try is as good as any
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _copy(self, target: Path) -> None:
        command = [str(installation.bindir() / "pg_basebackup"), "-D", str(target), "-d", self.primary.dsn(),
                   "-c", "fast", "--no-sync"]  # fmt: skip
        self._backup = subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, **installation.as_server_user(),
        )  # fmt: skip
        said, _ = self._backup.communicate()
        if self._backup.returncode != 0:
            raise RuntimeError(said)

    def _standby_of(self, data: Path) -> Server:
        self._made += 1
        standby = Server(
            {**self.config, "primary_conninfo": self.primary.dsn()},
            extension=False, data=data, name=f"server {self._made}",
        )  # fmt: skip
        try:
            # Its log begins with itself, and it belongs to the user who runs it.
            installation.run_as_server_user(["touch", str(standby.data / "standby.signal")])
            standby.start()
        except BaseException:
            standby.close()
            raise
        return standby

    def promote(self, how: str) -> None:
        """Makes the standby the primary: ``clean`` loses nothing, ``hard`` kills the old one at once,
        ``split`` lets the old one go on for a moment. Then a new standby is built."""
        old, new = self.primary, self.standby
        assert new is not None
        self.standby = None
        if how == "clean":
            self._wait_until_streaming(old)
            old.stop("fast", PATIENCE)
            if not self._caught_up(old, new):
                self.cut.add(self.epoch)
        else:
            self.cut.add(self.epoch)
        if how == "hard":
            old.crash()
        assert new.value("SELECT pg_promote(true, 60)"), f"{new.name} was not promoted"
        self.servers[self.epoch + 1] = new
        self.primary = new
        self.epoch += 1
        if how == "split":
            time.sleep(1.5)  # for the two to be primaries side by side
            old.crash()
        old.close()
        self.build_standby()

    def _wait_until_streaming(self, old: Server) -> None:
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        try:
            wait_until(lambda: old.value(query), bool, "the standby to follow", 10)
        except AssertionError:
            pass  # then commits will be lost, and that is found out afterwards

    def _caught_up(self, old: Server, new: Server) -> bool:
        """Whether the standby has all that the old primary, stopped by now, ever wrote."""
        control = installation.run("pg_controldata", "-D", old.data)
        checkpoint = re.search(r"^Latest checkpoint location: +(\S+)$", control, re.MULTILINE)
        assert checkpoint is not None
        return bool(new.value("SELECT pg_last_wal_receive_lsn() > %s::pg_lsn", [checkpoint[1]]))

    def wait_until_up(self) -> None:
        """Waits until the primary is back from the last crash restart."""
        wait_until(self.primary.accepts_connections, bool, f"{self.primary.name} to take connections", PATIENCE)

    def close(self) -> None:
        """Ends both servers and what is being built."""
        self._closing = True
        if self._backup is not None and self._backup.poll() is None:
            self._backup.kill()
        if self._builder is not None:
            self._builder.join(PATIENCE)
        for server in {id(server): server for server in (self.standby, *self.servers.values()) if server}.values():
            server.close()
