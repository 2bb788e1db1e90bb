"""The PostgreSQL under test: where its programs are, and who may run them."""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def bindir() -> Path:
    """The folder of the programs of ``$PG_CONFIG``'s PostgreSQL."""
    return Path(pg_config("--bindir"))


@functools.cache
def pg_config(option: str) -> str:
    """What ``$PG_CONFIG`` answers to one option."""
    program = os.environ.get("PG_CONFIG", "pg_config")
    answer = subprocess.run([program, option], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


@functools.cache
def major_version() -> int:
    """The major version of the PostgreSQL under test."""
    return int(pg_config("--version").split()[1].split(".")[0])


@functools.cache
def server_user() -> str | None:
    """The user that runs servers, or None for the current one.

    PostgreSQL refuses to run as root, so root lends its servers to somebody else.
    """
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def as_server_user() -> dict[str, object]:
    """Arguments for ``subprocess`` that run a program as ``server_user()``."""
    user = server_user()
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def run(program: str, *args: str | Path) -> str:
    """Runs one of PostgreSQL's programs as the servers' user; its output, if it succeeds."""
    command = [str(bindir() / program), *map(str, args)]
    return run_as_server_user(command)


def run_as_server_user(command: list[str]) -> str:
    """Runs a command as the servers' user; its output, if it succeeds."""
    done = subprocess.run(
        command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **as_server_user()
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def new_directory(prefix: str, where: str | None = None) -> Path:
    """A temporary directory owned by the servers' user, in ``where`` if that is given.

    Not below pytest's: those belong to root there, and a Unix socket's path may
    not be longer than some hundred characters.
    """
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    directory.chmod(0o755)
    user = server_user()
    if user is not None:
        shutil.chown(directory, user, pwd.getpwnam(user).pw_gid)
    return directory


def scratch() -> str | None:
    """Where servers keep their files, if not with all that is temporary: ``scripts/server-tests`` names a
    place in memory, where a data directory is copied in a tenth of the time."""
    return os.environ.get("PG_REAPER_SCRATCH")


@functools.cache
def template() -> Path:
    """A freshly initialised data directory, made once and copied for every server."""
    parent = new_directory("pg_reaper-template-", scratch())
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    run("initdb", "-D", parent / "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8",
        "--locale=C", "--no-sync")  # fmt: skip
    return parent / "data"
