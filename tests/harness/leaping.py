"""Servers whose wall clock a test can set, while their monotonic clock goes on."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import subprocess
from pathlib import Path

from harness import installation

SOURCE = Path(__file__).resolve().parents[1] / "server/clock.c"


@functools.cache
def library() -> Path:
    """``clock.c``, compiled, where servers can read it."""
    directory = installation.new_directory("pg_reaper-clock-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    compiled = directory / "clock.so"
    command = [os.environ.get("CC", "cc"), "-O1", "-fPIC", "-shared", "-o", compiled, SOURCE]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"clock.c does not compile:\n{done.stdout}"
    return compiled


class Clock:
    """The wall clock of servers that have ``environment``."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._file.write_bytes(struct.pack("=q", 0))
        self._file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(library()), "PG_REAPER_CLOCK": str(self._file)}
        self.ahead = 0.0

    def leap(self, seconds: float) -> None:
        """Sets it ahead, or back."""
        self.ahead += seconds
        # Eight bytes in place, so that a server sees the time before or the time after.
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", round(self.ahead * 1_000_000)))
