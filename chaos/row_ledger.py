"""What is known about the rows of the watched tables: the clients' own knowledge, what the surviving
server remembers, and what the logs say. As ``ledger`` for barriers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class RowOp:
    """One transaction of a client on one row."""

    number: int
    row: str
    kind: str  # insert, renew, hold, free, complete
    epoch: int
    acked: bool = False


@dataclass(frozen=True)
class RowEntry:
    """A ``RowOp`` as the surviving server has it: the row as it was after that, or before it was deleted."""

    number: int
    relation: str
    row: str
    kind: str
    deadline: datetime
    state: str
    # Whether the policy's filter lets it through.
    meets: bool
    # Whether it is one of those that could not be deleted for a while.
    bad: bool
    committed: datetime


@dataclass(frozen=True)
class Reaping:
    """A row that was deleted by no client, noted by a trigger in the same transaction."""

    relation: str
    row: str
    deadline: datetime
    state: str
    meets: bool
    at: datetime
    committed: datetime
    pid: int


@dataclass(frozen=True)
class RowLeft:
    """A row that is there at the end."""

    relation: str
    row: str
    deadline: datetime
    meets: bool


@dataclass(frozen=True)
class Quarantined:
    """A row that is in quarantine at the end."""

    relation: str
    key: str
    error: str
    tries: int


@dataclass
class RowFacts:
    """All that the checker judges policies by."""

    ops: list[RowOp] = field(default_factory=list)
    journal: list[RowEntry] = field(default_factory=list)
    reapings: list[Reaping] = field(default_factory=list)
    left: list[RowLeft] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    # The rows that were ever put into quarantine.
    put: set[str] = field(default_factory=set)
