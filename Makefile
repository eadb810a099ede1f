# Two commands matter: `make quickstart` and `make test`. Both create .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of the tests. More of them have more Rays, each for four workers.
PROCESSES ?= 2
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test postgresql chromium prometheus lint format clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP)  ## create .venv and install Kovar with its development tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Kovar needs Python 3.11 or newer; $$($(PYTHON) --version) found. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# torch first: its pinned version keeps pip from fetching gigabytes of CUDA packages.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: $(STAMP)  ## fine-tune, evaluate, register and serve a real model, end to end
	$(BIN)/kovar quickstart $(ARGS)

# The order of files is that of tests/conftest.py: those that take longest come first.
test: $(STAMP) postgresql chromium prometheus  ## run the whole test suite
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

# The registry is tested on a real PostgreSQL server, which the suite starts and ends by itself.
postgresql:
	@if [ -z "$$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] && [ "$$(id -u)" = 0 ]; then \
	  echo "installing PostgreSQL for the tests"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y postgresql >/dev/null; \
	fi

# The pages of runs are opened in a real browser.
chromium:
	@if [ -z "$$(command -v chromium || command -v chromium-browser || command -v google-chrome)" ] && \
	  [ "$$(id -u)" = 0 ]; then \
	  echo "installing Chromium for the tests"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; \
	fi

# The metrics of endpoints are scraped by a real Prometheus; its service is not needed.
prometheus:
	@if [ -z "$$(command -v prometheus)" ] && [ "$$(id -u)" = 0 ]; then \
	  echo "installing Prometheus for the tests"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus >/dev/null; \
	fi

lint: $(STAMP)  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the virtual environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
