"""A steady foreground load by pgbench, and the latency of each of its transactions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import Server, installation

CLIENTS = 4
# Updates of single rows that seldom meet: what is measured is the reaper, not pgbench's own locks.
SCRIPT = ("-b", "simple-update", "-n", "-c", str(CLIENTS), "-j", "1")
# The share of what the machine can do at most that is asked of it: moderate, as a server in health has it.
SHARE_OF_MOST = 0.25
TABLES_SCALE = 10
LONGEST_SECONDS = 1200


class Load:
    """pgbench under way. Its transactions are due at random times whatever became of those before, and
    a latency counts from when one was due."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.transactions: list[tuple[float, float]] = []

    def check(self) -> None:
        """An error if pgbench has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"pgbench ended: {self._process.communicate()[0][-1000:]}")

    def stop(self) -> None:
        """Ends it, and reads what it has logged: (end in Unix time, latency in ms) of each transaction."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate()
        for log in self._folder.glob("log*"):
            self.transactions += parse(log.read_text().splitlines())
        self.transactions.sort()

    def between(self, begin: float, end: float) -> list[tuple[float, float]]:
        """The transactions that ended in a span of Unix time."""
        return [(at, latency) for at, latency in self.transactions if begin <= at <= end]


def parse(lines: Iterable[str]) -> Iterator[tuple[float, float]]:
    """pgbench's log: client, number, latency in µs, script, and end in seconds and µs of Unix time. The
    last line may be cut short, since pgbench was ended as it wrote."""
    for line in lines:
        fields = line.split()
        if len(fields) < 7 or fields[2] in ("skipped", "failed"):
            continue
        yield int(fields[4]) + int(fields[5]) / 1e6, int(fields[2]) / 1000


def prepare(server: Server, seconds: float) -> int:
    """Makes pgbench's tables; the rate of a moderate load, by what it can do at most for so long."""
    _run(server, "-i", "-q", "-s", str(TABLES_SCALE))
    said = _run(server, *SCRIPT, "-T", str(round(seconds)))
    most = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    if most is None:
        raise RuntimeError(f"pgbench did not say how fast it was: {said[-1000:]}")
    return max(round(float(most[1]) * SHARE_OF_MOST), 10)


@contextmanager
def load(server: Server, rate: int) -> Iterator[Load]:
    """So many transactions a second for as long as the block runs; afterwards they are known."""
    folder = Path(tempfile.mkdtemp(prefix="pg_reaper-bench-"))
    command = _command(
        server, *SCRIPT, "-R", str(rate), "-T", str(LONGEST_SECONDS), "-l", "--log-prefix", str(folder / "log")
    )
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env=_environment())  # fmt: skip
    running = Load(process, folder)
    try:
        yield running
        running.check()
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def latencies(transactions: Sequence[tuple[float, float]]) -> list[float]:
    """Only the milliseconds."""
    return [latency for _, latency in transactions]


def wait(running: Load, seconds: float) -> None:
    """Lets it run for so long."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        running.check()
        time.sleep(min(left, 0.2))


def _command(server: Server, *arguments: str) -> list[str]:
    where = server.address()
    program = installation.bindir() / "pgbench"
    if not program.exists():
        raise RuntimeError(f"{program} is missing: this PostgreSQL came without pgbench")
    options = ["-h", where["host"], "-p", str(where["port"]), "-U", where["user"]]
    return [str(program), *options, *arguments, where["dbname"]]


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PG") or key == "PG_CONFIG"}


def _run(server: Server, *arguments: str) -> str:
    done = subprocess.run(_command(server, *arguments), capture_output=True, text=True, env=_environment())
    if done.returncode != 0:
        raise RuntimeError(f"pgbench failed: {done.stderr[-1000:]}")
    return done.stdout
