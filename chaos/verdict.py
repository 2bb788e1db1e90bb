"""One piece of evidence against a promise."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Broken(NamedTuple):
    """A promise that was broken, with the evidence: about what, and what speaks against it.

    The lines of the logs that have the clue in them (of about that time, if there is one) belong to
    it; without a clue those that name the subject.
    """

    promise: str
    subject: str
    evidence: str
    clue: str = ""
    at: datetime | None = None
