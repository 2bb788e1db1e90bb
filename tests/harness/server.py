"""A PostgreSQL server of a test's own: data, socket, settings, log, and its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from harness import installation
from harness.sessions import Sessions
from harness.waiting import wait_until

SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    # Whatever backlog a test makes, it need not be worked off with rests in between.
    "pg_reaper.duty_cycle": "100",
    # Or every test would begin with a wait.
    "pg_reaper.startup_grace": "0",
}

# What a failing test's report shows the logs of; see tests/conftest.py.
recent: list[Server] = []


class Server(Sessions):
    """A throwaway server, running inside ``with``.

    It listens on a Unix socket in a folder of its own and nowhere else, so any number
    of them may run at once on the one port. It is a child of this process, is stopped
    by its own process id, and takes all its files with it.
    """

    def __init__(
        self,
        config: Mapping[str, str] | None = None,
        *,
        preload: bool = True,
        extension: bool = True,
        data: Path | None = None,
        programs: Path | None = None,
        environment: Mapping[str, str] | None = None,
        name: str = "server",
    ) -> None:
        """``config`` goes into postgresql.conf. ``preload`` loads the library at start,
        ``extension`` creates the extension in ``postgres`` once it runs. ``data`` is a
        data directory to copy (a base backup, say) in place of a fresh one; ``programs`` the
        folder of another PostgreSQL's programs, whose data it then must be; ``environment`` is
        added to the server's."""
        self.name = name
        self.extension = extension
        self.programs = programs or installation.bindir()
        self.environment = dict(environment or {})
        self.kept = False
        super().__init__(installation.new_directory("pg_reaper-", installation.scratch()))
        self.data = self.directory / "data"
        self.logfile = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._last_log = ""
        installation.run_as_server_user(
            ["cp", "-a", "--reflink=auto", str(data or installation.template()), str(self.data)]
        )
        settings = {**SETTINGS, "unix_socket_directories": str(self.directory), "port": str(self.port)}
        if preload:
            settings["shared_preload_libraries"] = "pg_reaper"
        self.configure({**settings, **(config or {})})
        recent.append(self)

    def __enter__(self) -> Server:
        try:
            self.start()
            if self.extension:
                self.execute("CREATE EXTENSION IF NOT EXISTS pg_reaper")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def configure(self, settings: Mapping[str, str]) -> None:
        """Appends to postgresql.conf; the last line for a setting wins."""
        with (self.data / "postgresql.conf").open("a") as conf:
            for key, value in settings.items():
                quoted = str(value).replace("'", "''")
                conf.write(f"{key} = '{quoted}'\n")

    def start(self, *, wait: bool = True) -> None:
        """Starts the postmaster and, with ``wait``, waits until it takes connections."""
        assert self.process is None, f"{self.name} runs already"
        with self.logfile.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self.environment},
                **installation.as_server_user(),
            )
        if wait:
            wait_until(self.accepts_connections, bool, f"{self.name} to take connections")

    def accepts_connections(self) -> bool:
        """Whether a session can be opened; an error if the server has ended instead."""
        if self.process is not None and self.process.poll() is not None:
            self.process = None
            raise RuntimeError(f"{self.name} did not start:\n{self.log()[-4000:]}")
        try:
            self._open().close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, mode: str = "fast", timeout: float = 30) -> None:
        """Stops the server (``smart``, ``fast`` or ``immediate``) and waits for its end."""
        signals = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        process = self._running()
        process.send_signal(signals[mode])
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not stop in {timeout} s ({mode} shutdown)") from None
        self._ended()

    def restart(self, mode: str = "fast") -> None:
        """Stops and starts the server."""
        self.stop(mode)
        self.start()

    def crash(self) -> None:
        """Kills the postmaster with SIGKILL, and waits until its orphans have noticed.

        Until then they hold the shared memory and a new start would be refused.
        """
        process = self._running()
        children = self.children()
        process.kill()
        process.wait()
        wait_until(
            lambda: [pid for pid in children if _alive(pid)],
            lambda left: not left,
            f"the processes of {self.name} to notice the crash",
        )
        self._ended()

    def reload(self) -> None:
        """Has the server read its files again; new sessions see the result on return."""
        before = self.value("SELECT pg_conf_load_time()")
        os.kill(self.pid, signal.SIGHUP)
        wait_until(
            lambda: self.value("SELECT pg_conf_load_time()"),
            lambda now: now > before,
            f"{self.name} to reload its settings",
        )

    def keep(self) -> int:
        """Has the server outlive this program; the process id by which to stop it."""
        self.kept = True
        return self.pid

    def close(self) -> None:
        """Ends the server whatever state it is in, and removes its files."""
        if self.kept:
            return
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                # Children first: a postmaster that is gone cannot end them any more.
                for pid in self.children():
                    _kill(pid)
                self.process.kill()
                self.process.wait()
        self._ended()
        self._last_log = self.log()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    def children(self) -> list[int]:
        """The process ids of the server's own processes, the postmaster not among them."""
        return [int(pid) for task in Path(f"/proc/{self.pid}/task").iterdir()
                for pid in (task / "children").read_text().split()]  # fmt: skip

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, f"{self.name} is not running"
        return self.process

    def _ended(self) -> None:
        self.process = None
        self.close_connections()

    def set(self, **settings: str | int | bool | None) -> None:
        """Changes settings as an administrator does, and reloads; None is the default again.

        ``server.set(**{"pg_reaper.interval": "1s"})``
        """
        with self._open() as connection:
            for key, value in settings.items():
                name = sql.SQL(".").join(map(sql.Identifier, key.split(".")))
                if value is None:
                    connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(name))
                else:
                    literal = sql.Literal(str(value))
                    connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(name, literal))
        self.reload()

    def worker_pids(self) -> list[int]:
        """The process ids of the extension's workers, whichever database they are in."""
        rows = self.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_reaper worker' ORDER BY pid")
        return [pid for (pid,) in rows]

    def launcher_pid(self) -> int | None:
        """The process id of the launcher, if there is one."""
        return self.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_reaper launcher'")

    def log(self) -> str:
        """All the server has written to its log."""
        return self.log_since(0) if self.logfile.exists() else self._last_log

    def log_mark(self) -> int:
        """The present end of the log, for ``log_since``."""
        return self.logfile.stat().st_size

    def log_since(self, mark: int) -> str:
        """What was written to the log after ``log_mark`` gave this mark."""
        with self.logfile.open("rb") as log:
            log.seek(mark)
            return log.read().decode(errors="replace")


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
