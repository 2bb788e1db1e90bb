# Everything a target needs is fetched by scripts/with-pg when it is missing.
# An empty PG means the version of PG_CONFIG, or 18.

PG ?=
KEEP ?=
export PG_CONFIG KEEP
MINUTES ?= 2
SEED ?=
export MINUTES SEED
BARS ?=
SCALE ?=
REPETITIONS ?=
IDLE_SECONDS ?=
export BARS SCALE REPETITIONS IDLE_SECONDS

WITH_PG = scripts/with-pg "$(PG)"

.PHONY: help build install lint test dawdle expected demo chaos bench clean

help: ## this list
	@echo "make TARGET [PG=15|16|17|18] [PG_CONFIG=/path/to/pg_config]"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12
	@echo
	@echo "PG is 18 unless given; with PG_CONFIG it is that server's version. Without"
	@echo "PG_CONFIG a private PostgreSQL is fetched (15, 16 and 18)."

build: ## compile the extension, optimised
	@echo "==> compiling the extension, optimised" >&2
	@$(WITH_PG) sh -c 'cargo build --release --no-default-features --features "pg$$PG"'

install: ## compile it and install it into the PostgreSQL of PG_CONFIG
	@$(WITH_PG) scripts/install

lint: ## format, clippy and pgspot
	@$(WITH_PG) scripts/lint

test: ## every test, on one PostgreSQL
	@$(WITH_PG) scripts/test

dawdle: ## the real-server tests again, with processes that wait at random: what only haste made true fails
	@$(WITH_PG) scripts/dawdle

expected: ## take what pg_regress prints now as the expected output, to be reviewed
	@$(WITH_PG) scripts/regress --accept

demo: ## a fan-out with dying clients, and the reaper at work (KEEP=1: leave the server running)
	@$(WITH_PG) scripts/demo

chaos: ## faults let loose on it (MINUTES=2, SEED=n for the same faults again)
	@$(WITH_PG) scripts/chaos

bench: ## measurements beside peers, an hour (BARS=1,2 SCALE=0.1 REPETITIONS=3 IDLE_SECONDS=60: a quick look)
	@$(WITH_PG) scripts/bench

clean: ## remove what was built here (the cache of fetched tools stays)
	rm -rf target
