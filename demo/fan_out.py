"""A real fan-out whose clients die in the middle, and the reaper cleaning up after them.

    python demo/fan_out.py [--keep]

Barriers are armed, client processes finish their tasks by the barrier protocol, and a
tenth of the clients are killed with SIGKILL while they work. What they had taken is
never done, so some barriers never reach zero: the worker has to reap those, and only
those. The exit status says whether it did.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness import Server, installation, wait_until
from report import Outcome, read_outcome

BARRIERS = 300
CLIENTS = 20
KILLED = CLIENTS // 10
TASKS_EACH = (3, 8)
TASKS_AT_ONCE = 12
# Long enough that every barrier whose clients live is completed well before it.
DEADLINE_SECONDS = 12
GRACE_SECONDS = 15
INTERVAL = "500ms"

# What belongs to the application rather than to the extension: the tasks to take,
# and a record of the callbacks that fired, by which the report judges the reaper.
APPLICATION = """
CREATE SCHEMA demo;
CREATE TABLE demo.task (
    execution_id text NOT NULL,
    number integer NOT NULL,
    taken_by integer,
    PRIMARY KEY (execution_id, number)
);
CREATE INDEX ON demo.task (number, execution_id) WHERE taken_by IS NULL;
CREATE TABLE demo.callback (
    execution_id text PRIMARY KEY,
    results jsonb NOT NULL,
    fired_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE demo.abandoned (
    execution_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE demo.armed (execution_id text PRIMARY KEY, expires_at timestamptz NOT NULL);
"""

ARM = """
WITH armed AS (
    INSERT INTO pg_barrier_state (execution_id, organization_id, remaining, expires_at)
    SELECT format('order-%%s', n), format('org-%%s', n %% 7),
           %(least)s + n %% (%(most)s - %(least)s + 1), now() + make_interval(secs => %(seconds)s + 2 * random())
    FROM generate_series(1, %(barriers)s) AS n
    RETURNING execution_id, remaining, expires_at
), tasks AS (
    INSERT INTO demo.task (execution_id, number)
    SELECT execution_id, generate_series(1, remaining) FROM armed
)
INSERT INTO demo.armed SELECT execution_id, expires_at FROM armed
"""


@dataclass
class Client:
    """One worker process of the application."""

    number: int
    process: subprocess.Popen[bytes]
    # Killed once it has taken so many tasks, so in the middle of its work; None is never.
    doom: int | None


def start_clients(server: Server) -> list[Client]:
    """Starts the clients, some of them doomed."""
    script = str(Path(__file__).with_name("client.py"))
    clients = []
    for number in range(CLIENTS):
        command = [sys.executable, "-B", script, server.dsn(), str(number), str(TASKS_AT_ONCE)]
        doom = random.randint(1, 4 * TASKS_AT_ONCE) if number < KILLED else None
        clients.append(Client(number, subprocess.Popen(command), doom))
    return clients


class Progress:
    """A line about once a second, whether or not anybody watches on a terminal."""

    def __init__(self, server: Server) -> None:
        self.connection = server.connect()
        self.started = time.monotonic()
        self.due = 0.0

    def kill_doomed(self, clients: list[Client]) -> None:
        """Kills the clients that have taken enough, without a word of warning."""
        rows = self.connection.execute(
            "SELECT taken_by, count(*) FROM demo.task WHERE taken_by IS NOT NULL GROUP BY taken_by"
        )
        taken = dict(rows.fetchall())
        for client in clients:
            if client.doom is not None and taken.get(client.number, 0) >= client.doom:
                client.process.send_signal(signal.SIGKILL)

    def show(self, clients: list[Client]) -> int:
        """Prints a line if one is due; the number of barriers still there."""
        waiting, open_tasks, done = self.connection.execute(
            "SELECT (SELECT count(*) FROM pg_barrier_state),"
            " (SELECT count(*) FROM demo.task WHERE taken_by IS NULL),"
            " (SELECT count(*) FROM demo.callback)"
        ).fetchone()
        elapsed = time.monotonic() - self.started
        if elapsed >= self.due or waiting == 0:
            self.due = elapsed + 1
            killed = sum(client.process.poll() == -signal.SIGKILL for client in clients)
            running = sum(client.process.poll() is None for client in clients)
            print(
                f"{elapsed:5.1f} s  tasks open {open_tasks:4}  barriers waiting {waiting:3}"
                f"  completed {done:3}  reaped {BARRIERS - waiting - done:3}"
                f"  clients running {running:2}, killed {killed}",
                flush=True,
            )
        return waiting


def run(server: Server) -> Outcome:
    """Arms the barriers, lets the clients work and die, and waits for the reaper."""
    server.execute(APPLICATION)
    least, most = TASKS_EACH
    with server.connect(autocommit=False) as connection:
        connection.execute(
            ARM, {"least": least, "most": most, "barriers": BARRIERS, "seconds": DEADLINE_SECONDS}
        )
    tasks = server.value("SELECT count(*) FROM demo.task")
    print(
        f"{BARRIERS} barriers armed with {tasks} tasks, to be done in {DEADLINE_SECONDS} to {DEADLINE_SECONDS + 2} s;"
        f" {CLIENTS} clients, of which {KILLED} will be killed at work"
    )
    clients = start_clients(server)
    progress = Progress(server)

    def barriers_left() -> int:
        progress.kill_doomed(clients)
        return progress.show(clients)

    try:
        wait_until(
            barriers_left, lambda left: left == 0, "every barrier to go", DEADLINE_SECONDS + GRACE_SECONDS
        )
    except AssertionError as late:
        print(f"giving up: {late}")
    finally:
        for client in clients:
            if client.process.poll() is None:
                client.process.terminate()
            client.process.wait()
    # The row is gone at commit, its line in the log comes just after.
    try:
        return wait_until(
            lambda: read_outcome(server), lambda seen: seen.logged >= seen.reaped, "the log's last lines", 5
        )
    except AssertionError:
        return read_outcome(server)


def main() -> int:
    """The exit status: 0 if every orphan was reaped and no live barrier was."""
    parser = argparse.ArgumentParser(description="A fan-out with dying clients.")
    parser.add_argument("--keep", action="store_true", help="leave the server running at the end")
    keep = parser.parse_args().keep

    print(f"starting a throwaway PostgreSQL {installation.major_version()}; the worker looks every {INTERVAL}")
    server = Server(
        {"pg_reaper.interval": INTERVAL, "pg_reaper.lease_duration": "5s", "pg_reaper.log_limit": str(BARRIERS)}
    )
    with server:
        outcome = run(server)
        outcome.show()
        psql = f'{installation.bindir() / "psql"} "{server.dsn()}"'
        if keep:
            pid = server.keep()
            print(f"\nThe server goes on. To look around:\n  {psql}")
            print("    SELECT * FROM pg_reaper_status();\n    SELECT * FROM pg_reaper_lease;")
            print(f"  less {server.logfile}")
            print(f"To stop it:\n  kill -INT {pid}; tail --pid={pid} -f /dev/null; rm -r {server.directory}")
        else:
            print("\nThe server ends here. To look around in it, keep it running:\n  make demo KEEP=1")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
