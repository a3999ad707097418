# make setup | run | test | test-all | bench | lint | clean. Needs Python >= 3.11 and nothing else; PYTHON=... names one.
# make run ARGS="router=cloud_only seed=3" passes overrides on.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
CHECK := import sys; sys.exit(sys.version_info < (3, 11))
# The first interpreter that starts and is new enough; a name alone may be a shim without a version behind it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	if $$p -c '$(CHECK)' >/dev/null 2>&1; then echo $$p; break; fi; done)

.PHONY: setup run test test-all bench lint clean
.DEFAULT_GOAL := run

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "make: no Python >= 3.11 found; install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c '$(CHECK)' 2>/dev/null || { \
		echo "make: $(PYTHON) is missing or older than Python 3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) lacks the modules venv and ensurepip; install them (Debian: python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "make: could not make $(VENV); is this folder writable?" >&2; exit 1; }
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || { \
		echo "make: pip could not install the pinned packages; it needs a package index (network, or pip's own configuration)" >&2; \
		exit 1; }
	@touch $@

run: $(STAMP)
	@$(BIN)/hybridfleet run $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(STAMP)
	@$(BIN)/python -m pytest -n 2

bench: $(STAMP)
	@$(BIN)/python -m tests.benchmarks.bench

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
