"""Which faults come when: a pure function of the seed and the minutes."""

from __future__ import annotations

import random
from dataclasses import dataclass

DATABASES = ("alpha", "beta")

# A ``batch`` is a worker that is in the middle of one; to ``usurp`` a lease is to overwrite its row,
# however fresh. How often each kind of fault is in a bag. A bag is emptied before the next one is filled, so
# that every kind comes, in an order that the seed alone decides.
BAG = {
    "kill worker": 1,
    "kill batch": 1,
    "kill launcher": 1,
    "kill backend": 1,
    "kill postmaster": 1,
    "restart fast": 1,
    "restart immediate": 1,
    "promote clean": 1,
    "promote hard": 1,
    "promote split": 1,
    "terminate worker": 2,
    "terminate batch": 1,
    "terminate launcher": 1,
    "terminate backend": 1,
    "cancel worker": 2,
    "cancel batch": 1,
    "cancel backend": 1,
    "freeze worker": 3,
    "freeze batch": 2,
    "freeze launcher": 1,
    "usurp lease": 5,
    "usurp term": 5,
    "lock lease row": 2,
    "lock lease table": 2,
    "lock barrier table": 2,
    "lock barriers": 3,
    "old snapshot": 2,
    "reload": 4,
    "twin": 5,
}

# These take the whole server down, and need some time between them to show what comes after.
HEAVY = ("kill", "restart", "promote")
HEAVY_APART = 5.0
PROMOTIONS_APART = 22.0

# Seconds that a fault lasts, of those that last; for which it lies in wait, if it usurps.
LASTS = {
    "freeze worker": (2.5, 5.0),
    "freeze batch": (2.5, 5.0),
    "freeze launcher": (2.0, 6.0),
    "usurp lease": (6.0, 10.0),
    "usurp term": (6.0, 10.0),
    "lock lease row": (0.3, 4.0),
    "lock lease table": (0.3, 4.0),
    "lock barrier table": (0.3, 3.0),
    "lock barriers": (1.0, 6.0),
    "old snapshot": (5.0, 15.0),
    "reload": (3.0, 10.0),
}

# In force when no fault changes them.
INTERVAL, LEASE_SECONDS = "200ms", 2.0

# The shortest is what the checker takes for "fresh".
LEASES = ("1500ms", "2s", "3s", "4s")
SHORTEST_LEASE_SECONDS = 1.5
INTERVALS = ("20ms", "100ms", "300ms", "1s")
BATCHES = ("1", "7", "50", "1000")

# Nobody has settled before the first fault, nor should the last be cut short.
FIRST_AT = 3.0


@dataclass(frozen=True)
class Fault:
    """One fault: when, what, where, for how long. ``pick`` (0 to 1) chooses among several targets."""

    at: float
    kind: str
    database: str
    pick: float
    seconds: float = 0.0
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def heavy(self) -> bool:
        """Whether it takes the whole server down."""
        return self.kind.startswith(HEAVY)

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        settings = "".join(f" {name}={value}" for name, value in self.settings)
        return f"{self.at:7.2f} s  {self.kind}, {self.database}, pick {self.pick:.2f}{lasting}{settings}"


def draw(seed: int, minutes: float) -> list[Fault]:
    """The faults of a run, in order of time."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    bag: list[str] = []
    at, heavy, promoted = FIRST_AT, 0.0, 0.0
    while at < minutes * 60:
        if not bag:
            bag = [kind for kind, times in BAG.items() for _ in range(times)]
            rng.shuffle(bag)
        kind = next((kind for kind in bag if _allowed(kind, at - heavy, at - promoted)), None)
        if kind is None:
            at += 1.0
            continue
        bag.remove(kind)
        fault = _fault(rng, at, kind)
        faults.append(fault)
        heavy = at if fault.heavy else heavy
        promoted = at if kind.startswith("promote") else promoted
        at += rng.uniform(0.2, 3.0)
    return faults


def _allowed(kind: str, since_heavy: float, since_promotion: float) -> bool:
    if kind.startswith("promote") and since_promotion < PROMOTIONS_APART:
        return False
    return not kind.startswith(HEAVY) or since_heavy >= HEAVY_APART


def _fault(rng: random.Random, at: float, kind: str) -> Fault:
    least, most = LASTS.get(kind, (0.0, 0.0))
    database, pick, seconds = rng.choice(DATABASES), rng.random(), rng.uniform(least, most)
    settings: tuple[tuple[str, str], ...] = ()
    if kind == "reload":
        settings = (
            ("pg_reaper.interval", rng.choice(INTERVALS)),
            ("pg_reaper.lease_duration", rng.choice(LEASES)),
            ("pg_reaper.batch_size", rng.choice(BATCHES)),
        )
        special = rng.random()
        if special < 0.25:
            settings = (("pg_reaper.enabled", "off"),)
        elif special < 0.4:
            # Not a valid pair: the last valid one stays in force.
            settings = (("pg_reaper.interval", "10s"), *settings[1:])
    return Fault(round(at, 3), kind, database, pick, seconds, settings)
