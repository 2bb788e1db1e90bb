"""What is known about a run, kept outside the databases: the clients' own knowledge as they go,
and at the end what the surviving server remembers, and every server's log.

An *epoch* is the time of one primary. Each promotion begins a new one, and what the old primary
had committed but not yet sent is then lost, legitimately: such an epoch is *cut*.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from datetime import datetime

from chaos.row_ledger import RowFacts, RowOp

# Who deleted a barrier, or moved a lease.
CLIENT, OUTSIDE, WORKER = "client", "outside", ""


@dataclass
class Op:
    """One transaction of a client on one barrier."""

    number: int
    database: str
    barrier: str
    kind: str  # arm, decrement, rearm, abort, complete
    epoch: int
    # Whether the server said that it is committed; if not, it may be so nevertheless.
    acked: bool = False
    # What an arm or a re-arm has set, by the server's clock.
    deadline: datetime | None = None
    remaining: int | None = None


@dataclass(frozen=True)
class Entry:
    """An ``Op`` as the surviving server has it: written in the very same transaction."""

    number: int
    database: str
    barrier: str
    kind: str
    deadline: datetime | None
    remaining: int | None
    committed: datetime


@dataclass(frozen=True)
class Miss:
    """A client did not find a barrier. ``at`` was read from the server's clock after that."""

    database: str
    barrier: str
    epoch: int
    at: datetime
    kind: str
    # Commits of the client's own that came before on this barrier: the op numbers.
    before: int


@dataclass(frozen=True)
class Deletion:
    """A barrier that was deleted, noted by a trigger in the same transaction."""

    database: str
    n: int
    barrier: str
    deadline: datetime
    remaining: int
    at: datetime
    committed: datetime
    pid: int
    who: str
    leader: str
    term: int | None


@dataclass(frozen=True)
class Move:
    """A change of hands of a lease, noted by a trigger in the same transaction."""

    database: str
    n: int
    leader: str
    term: int | None
    old_leader: str
    old_stamp: datetime
    at: datetime
    committed: datetime
    who: str

    def __str__(self) -> str:
        return (
            f"{self.leader!r} took it in term {self.term} at {self.at} from {self.old_leader!r},"
            f" stamped {self.old_stamp} (by {self.who or 'pg_reaper'})"
        )


@dataclass(frozen=True)
class Line:
    """A line of a server's log that says that a barrier was reaped."""

    epoch: int
    barrier: str
    lateness_ms: float
    text: str


@dataclass(frozen=True)
class Left:
    """A barrier that is there at the end."""

    database: str
    barrier: str
    deadline: datetime
    remaining: int


@dataclass
class Facts:
    """All that the checker judges by."""

    ops: list[Op] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
    journal: list[Entry] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    # What policies watch, beside the barriers.
    rows: RowFacts = field(default_factory=RowFacts)
    # Epochs whose last commits were lost with their server.
    cut: set[int] = field(default_factory=set)
    # The server's clock when `left` was read.
    ended: datetime | None = None
    shortest_lease: float = 0.0
    # Servers that did not stop or start in time, in words.
    stuck: list[str] = field(default_factory=list)


class Ledger:
    """Where clients write down what they do; safe for many threads."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def begin(self, database: str, barrier: str, kind: str, epoch: int) -> Op:
        """Writes down what is about to be tried."""
        with self._lock:
            op = Op(next(self._numbers), database, barrier, kind, epoch)
            self.facts.ops.append(op)
            return op

    def begin_row(self, row: str, kind: str, epoch: int) -> RowOp:
        """The same for a row that a policy watches."""
        with self._lock:
            op = RowOp(next(self._numbers), row, kind, epoch)
            self.facts.rows.ops.append(op)
            return op

    def missed(self, database: str, barrier: str, epoch: int, at: datetime, kind: str) -> None:
        """Writes down that a client did not find a barrier."""
        with self._lock:
            self.facts.misses.append(Miss(database, barrier, epoch, at, kind, next(self._numbers)))

    def stuck(self, what: str) -> None:
        """Writes down that a server did not do as it was told."""
        with self._lock:
            self.facts.stuck.append(what)
