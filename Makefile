# The verbs that people, the README and CI share.

VENV   := .venv
BIN    := $(if $(filter Windows_NT,$(OS)),$(VENV)/Scripts,$(VENV)/bin)
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help

.PHONY: install demo test check bench bench-cache bench-changes bench-tiers bench-planner bench-growth bench-peers bench-clients docs pins clean help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(READY) ## Make the environment in .venv (with uv if it is there, else venv and pip)

$(READY): pyproject.toml requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed, and none was found on PATH" >&2; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --quiet --python "$(PYTHON)" $(VENV); \
		uv pip install --quiet --python $(BIN)/python -r requirements/dev.txt && \
		uv pip install --quiet --python $(BIN)/python --no-deps -e . ; \
	else \
		{ test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV); } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $@

demo: install ## Run the main job, with real data, on this machine
	$(BIN)/cat2 demo

test: install ## Run all tests
	$(BIN)/python -m pytest -q

check: install ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## Measure, as ratios side by side in one run
	$(BIN)/python -m pytest -q benchmarks --benchmark-only

bench-cache: install ## Measure the cache: cold, warm and evicting reads, and the memory of a crowd
	$(BIN)/python -m pytest -q -s benchmarks/test_cache.py

bench-changes: install ## Measure changes: latency, bytes moved, scale
	$(BIN)/python -m pytest -q -s benchmarks/test_changes.py benchmarks/test_scale.py

bench-tiers: install ## Measure tiers: 1, 4 and 16 readers on a LAN of one dataset behind a slow link
	$(BIN)/python -m pytest -q -s benchmarks/test_tiers.py

bench-planner: install ## Measure cold reads over a slow link, with and without the planner
	$(BIN)/python -m pytest -q -s -p no:benchmark benchmarks/test_planner.py

bench-peers: install ## Measure beside the peers, each in its own environment (a quarter of an hour; SIZE=small: a try)
	$(BIN)/python -m benchmarks.peers --size $(or $(SIZE),full)

bench-clients: install ## Measure what a small slice moves through each client that people have
	$(BIN)/python -m benchmarks.integrations

bench-growth: install ## Measure what it costs as it grows: chunks, datasets, clients, extents; fairness
	$(BIN)/python -m benchmarks.growth

docs: install ## Build the documentation into build/docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

pins: ## Compile requirements/ anew (needs uv)
	UV_CUSTOM_COMPILE_COMMAND="make pins" uv pip compile -q pyproject.toml --universal --python-version 3.11 \
		--no-emit-index-url --no-annotate -o requirements/base.txt
	UV_CUSTOM_COMPILE_COMMAND="make pins" uv pip compile -q pyproject.toml --group dev --universal \
		--python-version 3.11 --no-emit-index-url --no-annotate -o requirements/dev.txt

clean: ## Remove what was made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
