"""The verdict: takes the facts of a run and says which promises were broken. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from chaos import barriers, leases, rows
from chaos.ledger import Facts
from chaos.verdict import Broken

PROMISES = {
    "live": "live barriers lost",
    "orphans": "orphans left",
    "twice": "rows reaped twice",
    "counted": "decrements not in the row that was reaped",
    "lost": "live rows of policies lost",
    "due": "due rows of policies left",
    "put": "bad rows that were never in quarantine",
    "quarantine": "rows left in quarantine",
    "heldup": "good rows held up behind bad ones",
    "leaders": "commits by two leaders in one lease",
    "terms": "terms not rising",
    "commits": "acknowledged commits gone",
    "stuck": "servers that did not stop or start",
}


@dataclass
class Verdict:
    """What was broken, by promise."""

    broken: list[Broken]

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def of(self, promise: str) -> list[Broken]:
        """What speaks against one promise."""
        return [broken for broken in self.broken if broken.promise == promise]


def judge(facts: Facts) -> Verdict:
    """Holds the facts against every promise."""
    broken = [
        *barriers.judge(facts),
        *rows.judge(facts),
        *leases.judge(facts),
        *(Broken("stuck", "server", what) for what in facts.stuck),
    ]
    unknown = {found.promise for found in broken} - set(PROMISES)
    assert not unknown, f"promises without a name: {unknown}"
    return Verdict(broken)
