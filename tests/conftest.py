"""Servers for tests, and their logs in the report of a test that fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness import Server, installation, server as server_module
from harness.leaping import Clock
from harness.reaper import wait_for, wait_for_sweep

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


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A wall clock to set, for servers that are made with its ``environment``."""
    directory = installation.new_directory("pg_reaper-clock-")
    yield Clock(directory)
    shutil.rmtree(directory)


@pytest.fixture
def leaping(make_server: Callable[..., Server], clock: Clock) -> Server:
    """A server by that clock, its worker leading."""
    server = make_server(environment=clock.environment)
    wait_for(server, "leader")
    wait_for_sweep(server)
    return server


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
