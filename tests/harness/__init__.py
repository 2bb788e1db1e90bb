"""Throwaway PostgreSQL servers for tests and the demo, and waiting without sleeping."""

from harness.server import Server
from harness.waiting import wait_until

__all__ = ["Server", "wait_until"]
