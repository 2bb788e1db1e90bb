"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def wait_until(
    fetch: Callable[[], T],
    predicate: Callable[[T], bool] = bool,
    description: str = "the condition",
    timeout: float = 30,
) -> T:
    """Calls ``fetch`` until ``predicate`` holds for what it returned, and returns that.

    A test that only says "timed out" says nothing: the failure reports the last
    value seen. An exception from ``fetch`` is the test's business and is not hidden.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = fetch()
        if predicate(value):
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s for {description}; last value seen: {value!r}")
        time.sleep(POLL_SECONDS)
