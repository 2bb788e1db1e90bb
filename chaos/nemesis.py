"""Carries out the schedule of faults."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
from harness import Server, wait_until

from chaos import targets
from chaos.cluster import PATIENCE, Cluster
from chaos.ledger import Ledger
from chaos.scene import CONFIG, Scene
from chaos.schedule import Fault

# More rivals than these bring nothing new.
MOST_WORKERS = 3
# How long to lie in wait for one in the middle of a batch.
BATCH_PATIENCE = 4.0
POLL_SECONDS = 0.01


class Missed(Exception):
    """A fault that found nobody to hit."""


class Nemesis:
    """Goes through the schedule; faults that last go on beside the next ones."""

    def __init__(self, cluster: Cluster, scenes: list[Scene], ledger: Ledger, say: Callable[[str], None]) -> None:
        self.cluster, self.ledger, self.say = cluster, ledger, say
        self.scenes = {scene.database: scene for scene in scenes}
        self.done: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self._over = threading.Event()
        self._lasting: list[threading.Thread] = []

    def run(self, schedule: list[Fault], seconds: float) -> None:
        """Lets every fault happen at its time, or as soon as the one before lets it."""
        began = time.monotonic()
        for fault in schedule:
            self._over.wait(max(began + fault.at - time.monotonic(), 0))
            if fault.seconds:
                thread = threading.Thread(target=self._attempt, args=[fault], daemon=True, name=fault.kind)
                thread.start()
                self._lasting = [*(t for t in self._lasting if t.is_alive()), thread]
            else:
                self._attempt(fault)
        self._over.wait(max(began + seconds - time.monotonic(), 0))

    def heal(self) -> None:
        """Ends every fault that still lasts."""
        self._over.set()
        for thread in self._lasting:
            thread.join(PATIENCE)

    def _attempt(self, fault: Fault) -> None:
        kind, _, what = fault.kind.partition(" ")
        try:
            method: Callable[[Fault, str], str] = getattr(self, f"_{kind}")
            outcome = method(fault, what)
            self.done[fault.kind] += 1
        except (Missed, psycopg.Error) as why:
            outcome = f"missed: {str(why).splitlines()[0] if str(why) else type(why).__name__}"
            self.missed[fault.kind] += 1
        except (AssertionError, RuntimeError) as why:
            # A server that did not stop, or did not start.
            outcome = f"stuck: {why}"
            self.ledger.stuck(f"{fault.kind} in epoch {self.cluster.epoch}: {why}")
            self._force()
        self.say(f"{fault}: {outcome}")

    def _force(self) -> None:
        """Gets a server running again that would not do so by itself."""
        server = self.cluster.primary
        with suppress(AssertionError):
            server.crash()
        with suppress(AssertionError, RuntimeError):
            server.start()

    def _database(self, fault: Fault) -> Scene:
        return self.scenes.get(fault.database) or next(iter(self.scenes.values()))

    def _target(self, fault: Fault, what: str) -> tuple[Server, int]:
        server = self.cluster.primary
        if what == "worker":
            pid = targets.choose(targets.workers(server, self._database(fault).database), fault.pick, favour_first=True)
        elif what == "batch":
            # What lasts has a thread of its own, and time.
            patience = fault.seconds * 3 or BATCH_PATIENCE
            pid = self._in_a_batch(server, self._database(fault).database, patience)
        elif what == "launcher":
            pid = targets.choose(targets.launchers(server), fault.pick)
        elif fault.kind.startswith("kill"):
            pid = targets.choose(sorted(server.children()), fault.pick)
        else:
            pid = targets.choose(targets.clients(server), fault.pick)
        if pid is None:
            raise Missed(f"no {what}")
        return server, pid

    def _in_a_batch(self, server: Server, database: str, patience: float) -> int:
        try:
            return wait_until(lambda: targets.in_a_batch(server, database), bool, "a batch", patience)[0]
        except AssertionError:
            raise Missed("no batch") from None

    def _kill(self, fault: Fault, what: str) -> str:
        if what == "postmaster":
            self.cluster.primary.crash()
            self.cluster.primary.start()
            return "killed and started"
        server, pid = self._target(fault, what)
        if not targets.send(server, pid, signal.SIGKILL):
            raise Missed(f"{pid} has gone")
        return f"pid {pid}"

    def _restart(self, fault: Fault, how: str) -> str:
        began = time.monotonic()
        self.cluster.primary.stop(how, PATIENCE)
        stopped = time.monotonic() - began
        self.cluster.primary.start()
        return f"stopped in {stopped:.1f} s"

    def _promote(self, fault: Fault, how: str) -> str:
        if not self.cluster.wait_for_standby(PATIENCE):
            raise Missed("no standby server")
        before = self.cluster.epoch
        self.cluster.promote(how)
        lost = "its last commits may be lost" if before in self.cluster.cut else "nothing lost"
        return f"epoch {self.cluster.epoch} begins, {lost}"

    def _terminate(self, fault: Fault, what: str) -> str:
        server, pid = self._target(fault, what)
        server.query("SELECT pg_terminate_backend(%s)", [pid])
        return f"pid {pid}"

    def _cancel(self, fault: Fault, what: str) -> str:
        server, pid = self._target(fault, what)
        server.query("SELECT pg_cancel_backend(%s)", [pid])
        return f"pid {pid}"

    def _freeze(self, fault: Fault, what: str) -> str:
        server, pid = self._target(fault, what)
        with targets.frozen(server, pid) as done:
            if not done:
                raise Missed(f"{pid} has gone")
            began = datetime.now(UTC)
            self._over.wait(fault.seconds)
        return f"pid {pid}, from {began:%H:%M:%S.%f} to {datetime.now(UTC):%H:%M:%S.%f}"

    def _usurp(self, fault: Fault, what: str) -> str:
        # As an operator's slip would: another leader, or the same one in a term that it does not know.
        scene = self._database(fault)
        if what == "term":
            scene = next(scene for scene in self.scenes.values() if scene.has_term)
            changes = "term = term + 1"
        else:
            changes = "leader = 'usurper'" + (", term = term + 1" if scene.has_term else "")
        until = time.monotonic() + fault.seconds
        while True:
            try:
                moment = self._overwrite(scene, changes, until)
                return f"{changes} in {scene.database}, {moment}"
            except psycopg.Error:
                # The session went down with its server: lie in wait again, while there is time.
                if time.monotonic() > until or self._over.wait(0.1):
                    raise

    def _overwrite(self, scene: Scene, changes: str, until: float) -> str:
        connection, _ = self.cluster.connect(scene.database, "nemesis")
        with connection:
            connection.execute("SET statement_timeout = '10s'")
            met = False
            while not met and time.monotonic() < until and not self._over.wait(POLL_SECONDS):
                met = targets.in_a_long_pass(connection)
            with connection.transaction():
                # Has the worker wait between two batches of a pass, past its renewal and before
                # the fence of the second: nothing but that is in the second's way.
                connection.execute("LOCK TABLE public.pg_barrier_state IN SHARE MODE")
                connection.execute(f"UPDATE {scene.lease} SET {changes}, acquired_at = clock_timestamp()")
        return "in the middle of a pass" if met else "at any moment"

    def _lock(self, fault: Fault, what: str) -> str:
        scene = self._database(fault)
        statement = {
            "lease row": f"SELECT FROM {scene.lease} FOR UPDATE",
            "lease table": f"LOCK TABLE {scene.lease}",
            "barrier table": "LOCK TABLE public.pg_barrier_state",
            "barriers": "SELECT FROM public.pg_barrier_state ORDER BY random() LIMIT 10 FOR UPDATE SKIP LOCKED",
        }[what]
        return self._hold(fault, "BEGIN", statement)

    def _old(self, fault: Fault, what: str) -> str:
        look = "SELECT count(*) FROM public.pg_barrier_state"
        return self._hold(fault, "BEGIN ISOLATION LEVEL REPEATABLE READ", look)

    def _hold(self, fault: Fault, begin: str, statement: str) -> str:
        connection, _ = self.cluster.connect(self._database(fault).database, "nemesis")
        with connection:
            connection.execute("SET statement_timeout = '5s'")
            connection.execute(begin)
            connection.execute(statement)
            self._over.wait(fault.seconds)
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                return "held until its session was gone"
        return "held"

    def _reload(self, fault: Fault, _: str) -> str:
        server = self.cluster.primary
        server.configure(dict(fault.settings))
        _hang_up(server)
        self._over.wait(fault.seconds)
        # A server that has been replaced meanwhile is gone with its settings.
        if server is not self.cluster.primary:
            return "in force until its server was gone"
        server.configure({name: CONFIG[name] for name, _ in fault.settings})
        _hang_up(server)
        return "in force and taken back"

    def _twin(self, fault: Fault, _: str) -> str:
        server, database = self.cluster.primary, self._database(fault).database
        if len(targets.workers(server, database)) >= MOST_WORKERS:
            raise Missed("rivals enough")
        pid = server.value("SELECT chaos.start_twin()", dbname=database)
        return f"pid {pid}"


def _hang_up(server: Server) -> None:
    # One that is down will read its files anyway.
    with suppress(AssertionError, ProcessLookupError):
        os.kill(server.pid, signal.SIGHUP)
