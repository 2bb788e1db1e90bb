# shellcheck shell=bash
# What the scripts beside this file share: how they speak, where they keep what
# they fetch, and how a half-finished download never looks like a finished one.
set -euo pipefail
umask 022 # servers started by root run as another user, who must read the cache

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# Root keeps the cache outside its home, which the servers' user cannot read.
# shellcheck disable=SC2034 # used by those that source this
if [ -n "${PG_REAPER_CACHE:-}" ]; then
    CACHE=$PG_REAPER_CACHE
elif is_root; then
    CACHE=/var/cache/pg_reaper
else
    CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pg_reaper
fi

# install_once TARGET COMMAND...
# Runs COMMAND with an empty directory as its last argument and moves that to
# TARGET when it has succeeded. Concurrent callers wait for the first.
install_once() {
    local target=$1
    shift
    [ ! -d "$target" ] || return 0
    mkdir -p "$(dirname "$target")" || die "cannot write to $(dirname "$target"): set PG_REAPER_CACHE to a directory of yours"
    exec 9>"$target.lock"
    flock 9
    if [ ! -d "$target" ]; then
        rm -rf "$target.new"
        mkdir "$target.new"
        "$@" "$target.new"
        mv "$target.new" "$target"
    fi
    exec 9>&-
}

# The user that runs servers for root, whom PostgreSQL refuses.
server_user() {
    if getent passwd postgres >/dev/null; then echo postgres; else echo nobody; fi
}

need() {
    command -v "$1" >/dev/null || die "$1 is missing: install $2"
}
