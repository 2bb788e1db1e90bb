"""When rows were seen to be gone, by a session that keeps looking."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Optional

from bench.stage import Stage

POLL_SECONDS = 0.002

Arrivals = Callable[[], Optional[Mapping[str, float]]]


def lateness(
    stage: Stage, query: str, deadlines: Mapping[str, float], patience: float, arrivals: Arrivals = lambda: None,
    poll_seconds: float = POLL_SECONDS,
) -> dict[str, float]:  # fmt: skip
    """Seconds from each deadline (Unix time) until the row was seen to be gone: never too few, and too
    many by a turn at most. ``query`` lists the rows that are there. Rows that are still there
    ``patience`` seconds after the last deadline count as that late.

    ``arrivals`` is called at each turn and gives the deadlines of the rows that it has added, None when
    no more will come. A row gone before its deadline is an error.
    """
    waiting = dict(deadlines)
    late: dict[str, float] = {}
    last = max(deadlines.values(), default=0.0)
    more = True
    with stage.session() as session:
        while waiting or more:
            new = arrivals() if more else None
            more = new is not None
            waiting.update(new or {})
            looked = time.time()
            last = max(last, looked if more else 0.0, *(new or {}).values())
            there = {name for (name,) in session.execute(query)}
            seen = time.time()
            for name in waiting.keys() - there:
                late[name] = seen - waiting.pop(name)
                if late[name] < 0:
                    raise RuntimeError(f"{name} was gone {-late[name]:.3f} s before its deadline")
            if seen > last + patience:
                late.update({name: seen - deadline for name, deadline in waiting.items()})
                break
            time.sleep(max(poll_seconds - (time.time() - looked), 0))
    return late
