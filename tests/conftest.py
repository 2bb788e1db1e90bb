"""Servers for tests, and their logs in the report of a test that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness import Server, server as server_module

LOG_TAIL = 6000

# Fast enough that a test never waits long, with the lease well above the interval.
QUICK = {"pg_reaper.interval": "100ms", "pg_reaper.lease_duration": "2s"}


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test: ``make_server({"setting": "value"}, preload=False)``.

    The settings come on top of the quick ones; the other arguments are ``Server``'s.
    """
    with ExitStack() as stack:

        def make(config: dict[str, str] | None = None, **kwargs: Any) -> Server:
            return stack.enter_context(Server({**QUICK, **(config or {})}, **kwargs))

        yield make


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server with the library loaded and the extension in ``postgres``."""
    return make_server()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Puts the end of each server's log under the failure it may explain."""
    report = yield
    if report.failed:
        for started in server_module.recent:
            report.sections.append((f"log of {started.name}", started.log()[-LOG_TAIL:]))
    if call.when == "teardown":
        server_module.recent.clear()
    return report
