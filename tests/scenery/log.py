"""Reading a server's log as an operator's tools do: line by line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from harness import Server, wait_until

# log_line_prefix of the harness: a time, a process id, then the severity.
ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[(\d+)\] ([A-Z]+): {2}(.*)$")


@dataclass
class Entry:
    """One report in the log, with the lines that belong to it."""

    pid: int
    severity: str
    message: str
    detail: str = ""
    hint: str = ""


def entries(log: str) -> list[Entry]:
    """The reports in a log; DETAIL and HINT go with the one before."""
    found: list[Entry] = []
    # What is being written at this moment has no end yet.
    for line in log.split("\n")[:-1]:
        match = ENTRY.match(line)
        if not match:
            continue
        pid, severity, rest = int(match[1]), match[2], match[3]
        if severity == "DETAIL" and found:
            found[-1].detail = rest
        elif severity == "HINT" and found:
            found[-1].hint = rest
        elif severity not in ("CONTEXT", "STATEMENT", "QUERY", "LOCATION"):
            found.append(Entry(pid, severity, rest))
    return found


def warnings(log: str, containing: str = "") -> list[Entry]:
    """The WARNINGs whose message contains a text."""
    return [entry for entry in entries(log) if entry.severity == "WARNING" and containing in entry.message]


def failures(log: str, table: str) -> list[Entry]:
    """The reports of failed sweeps of one table."""
    return warnings(log, f"sweep of {table} failed")


def orphans(log: str) -> dict[str | None, tuple[str, dict[str, Any]]]:
    """The orphans in a log: by execution id, the line and the record in its DETAIL."""
    told = warnings(log, "reaped orphaned barrier ")
    # The DETAIL of the last one may be still to come.
    found = [(entry.message, json.loads(entry.detail)) for entry in told if entry.detail or entry is not told[-1]]
    return {record["execution_id"]: (message, record) for message, record in found}


def until_told(server: Server, *ids: str | None) -> dict[str | None, tuple[str, dict[str, Any]]]:
    """Waits until each of these orphans has its line, which comes after the commit that reaped it."""
    return wait_until(lambda: orphans(server.log()), lambda told: told.keys() >= set(ids), f"lines for {ids}")
