"""What was measured on; nothing that names the machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bench.options import Options
from bench.report import Table
from bench.stage import CONFIG, Stage


def environment(stage: Stage, options: Options) -> Table:
    """Cores, memory, versions, settings, and how much was asked for."""
    meminfo = Path("/proc/meminfo").read_text()
    total = re.search(r"^MemTotal: +(\d+) kB", meminfo, re.MULTILINE)
    memory = f"{int(total[1]) / 1024 / 1024:.0f} GB" if total else "unknown"
    version = stage.server.value("SHOW server_version")
    extension = stage.server.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_reaper'")
    settings = {key: value for key, value in CONFIG.items() if not key.startswith("pg_reaper.")}
    return Table(
        ("what", "value"),
        [
            ("cores", str(len(os.sched_getaffinity(0)))),
            ("memory", memory),
            ("PostgreSQL", version.split()[0]),
            ("pg_reaper", f"{extension}, optimised build"),
            ("settings", ", ".join(f"{key} = {value}" for key, value in settings.items())),
            ("autovacuum", "on, but not for the tables that are measured"),
            ("repetitions", f"{options.repetitions}; {options.short_repetitions} of what is over within a second"),
            ("scale of rows and times", f"{options.scale:g}"),
        ],
        words=True,
    )
