"""Clients that tell stories: each row has steps that some client takes one after the other."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

import psycopg

from chaos.ledger import Ledger

# One step of a story: seconds to wait, what to do, and a number of seconds that it takes.
Stage = tuple[float, str, float]


@dataclass(order=True)
class Step:
    """What is to be done next on a row, and when."""

    due: float
    order: int
    subject: str = field(compare=False)
    # What is still to come.
    rest: list[Stage] = field(compare=False)


class Session(Protocol):
    """One session of a client."""

    def take(self, subject: str, stages: list[Stage], /) -> bool:
        """Takes the first step; whether the story goes on."""

    def close(self) -> None:
        """Ends the session."""


class Clients:
    """Some clients, as threads, that begin ``rate`` stories a second and go on with them in turns."""

    def __init__(
        self, database: str, ledger: Ledger, rng: random.Random, clients: int, rate: float, prefix: str | None = None
    ) -> None:
        self.database, self.ledger, self.rng, self.rate = database, ledger, rng, rate
        self.prefix = prefix or database
        self._ids = itertools.count(1)
        self._steps: list[Step] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._next_story = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name=f"client {n} of {self.prefix}")
            for n in range(clients)
        ]

    def story(self) -> list[Stage]:
        """What becomes of one more row; the first step makes it."""
        raise NotImplementedError

    def session(self) -> Session:
        """A session with the present primary."""
        raise NotImplementedError

    def start(self) -> None:
        """Lets the clients begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Has every client end after the step in hand: what they leave open is abandoned then."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                self.ledger.stuck(f"{thread.name} got no answer for {timeout} s")

    def _next(self) -> Step | None:
        """The next step that is due; None when it is over."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if self._next_story <= now:
                    self._next_story = max(self._next_story, now - 1) + self.rng.expovariate(self.rate)
                    number = next(self._ids)
                    return Step(now, number, f"{self.prefix}-{number}", self.story())
                if self._steps and self._steps[0].due <= now:
                    return heapq.heappop(self._steps)
                due = min([self._next_story, *(step.due for step in self._steps[:1])])
                self._changed.wait(due - now)
        return None

    def _push(self, step: Step) -> None:
        if step.rest:
            with self._changed:
                due = time.monotonic() + step.rest[0][0]
                heapq.heappush(self._steps, Step(due, step.order, step.subject, step.rest))
                self._changed.notify()

    def _work(self) -> None:
        client: Session | None = None
        while step := self._next():
            try:
                client = client or self.session()
                if client.take(step.subject, step.rest):
                    self._push(Step(0, step.order, step.subject, step.rest[1:]))
            except psycopg.Error:
                # Whether it is done is not known: the row is left alone.
                if client is not None:
                    client.close()
                client = None
                with self._changed:
                    self._changed.wait(0.1)
        if client is not None:
            client.close()
