"""Runs it: python -m bench [--bars 1,2] [--scale 0.1] [--repetitions 3] [--idle-seconds 60]."""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import psycopg
from harness import Server, installation

from bench import page, plots
from bench.bars import crowd, foreground, idle, lateness, probe, snapshot, throughput, ties
from bench.environment import environment
from bench.options import TRIED, parse
from bench.report import Report, failed
from bench.stage import CONFIG, Stage

ALL = (throughput, snapshot, probe, lateness, foreground, idle, crowd, ties)
BARS: dict[int, ModuleType] = {module.NUMBER: module for module in ALL}


def main() -> int:
    """The exit status: 0 if everything was measured, whatever the figures."""
    options = parse()
    complaint = unfit()
    if complaint:
        print(f"error: {complaint}", file=sys.stderr)
        return 2
    # Ends as Ctrl-C does: with everything stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:7.1f}] {what}", flush=True)

    reports = []
    with Server(CONFIG, name="the measured server") as server:
        stage = Stage(server, options, say)
        surroundings = environment(stage, options)
        for number in options.bars:
            reports.append(measured(BARS[number], stage))
    failures = any(check.measured is None for report in reports for check in report.checks)
    folder = TRIED if failures else options.folder
    write(folder, page.render(options, surroundings, reports), reports)
    print(f"\n{page.verdicts(reports).plain()}\n\nThe results are in {folder / 'results.md'}.")
    return int(failures)


def measured(bar: ModuleType, stage: Stage) -> Report:
    """One bar's report; what goes wrong stands in it, and the others are measured all the same."""
    stage.say(f"bar {bar.NUMBER}: {bar.TITLE}")
    try:
        return bar.measure(stage)
    except Exception as error:
        traceback.print_exc()
        return failed(bar.NUMBER, bar.TITLE, f"{type(error).__name__}: {error}")
    finally:
        with suppress(psycopg.Error):  # then the next bar will say what is wrong
            stage.clear()


def write(folder: Path, text: str, reports: list[Report]) -> None:
    """Writes the page and its plots, in place of those of the last run."""
    shutil.rmtree(folder / "plots", ignore_errors=True)
    for report in reports:
        for name, drawn in report.plots.items():
            plots.save(drawn, folder / "plots" / f"{name}.svg")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text)


def unfit() -> str:
    """Why nothing can be measured here; empty if it can."""
    library = Path(installation.pg_config("--pkglibdir")) / "pg_reaper.so"
    if not library.exists():
        return f"{library} is missing: run this as `make bench`, which builds and installs it"
    built = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release" / "libpg_reaper.so"
    if not built.exists() or not filecmp.cmp(built, library, shallow=False):
        return f"{library} is not the optimised build in {built}: run this as `make bench`"
    return ""


if __name__ == "__main__":
    sys.exit(main())
