"""Runs tests/pg_regress with PostgreSQL's own pg_regress on a throwaway server.

    python -m harness.regress [--accept] [TEST...]

``cargo pgrx regress`` would do the same, but starts its server as the current user,
which PostgreSQL refuses to root, and on a TCP port that something else may hold.
``--accept`` takes the output as the expected one: read the difference before committing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness import Server, installation

TESTS = Path(__file__).resolve().parents[1] / "pg_regress"


def pg_regress() -> Path:
    """The program, which comes with the server headers."""
    return Path(installation.pg_config("--pgxs")).parents[1] / "test/regress/pg_regress"


def main() -> int:
    """The exit status: 0 when every test's output is the expected one."""
    parser = argparse.ArgumentParser(prog="regress", description="Runs tests/pg_regress.")
    parser.add_argument("--accept", action="store_true", help="take the output as the expected one")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="all of tests/pg_regress/sql unless given")
    args = parser.parse_args()
    tests = args.tests or sorted(path.stem for path in (TESTS / "sql").glob("*.sql"))
    if not tests:
        print("no tests in tests/pg_regress/sql")
        return 0

    # pg_regress gives up at the first test without a file to compare with.
    missing = [test for test in tests if not (TESTS / "expected" / f"{test}.out").exists()]
    if missing and not args.accept:
        print(f"no expected output for {', '.join(missing)}: look at it after `make expected`")
        return 1
    (TESTS / "expected").mkdir(exist_ok=True)
    for test in missing:
        (TESTS / "expected" / f"{test}.out").touch()

    output = Path(os.environ.get("CARGO_TARGET_DIR", "target")).resolve() / "pg_regress"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # The workers idle, so that nothing but a test touches its tables.
    with Server({"pg_reaper.enabled": "off"}, extension=False) as server:
        status = subprocess.run(
            [
                str(pg_regress()),
                f"--bindir={installation.bindir()}",
                f"--host={server.directory}",
                f"--port={server.port}",
                "--user=postgres",
                "--dbname=regression",
                f"--inputdir={TESTS}",
                f"--outputdir={output}",
                *tests,
            ],
            cwd=output,
        ).returncode
    if args.accept:
        for result in (output / "results").glob("*.out"):
            shutil.copyfile(result, TESTS / "expected" / result.name)
        return 0
    differences = output / "regression.diffs"
    if status != 0 and differences.exists():
        print(differences.read_text())
    return status


if __name__ == "__main__":
    sys.exit(main())
