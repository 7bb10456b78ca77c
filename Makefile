# Everything that people and CI run here. `make` alone lists the targets.
#
#   PYTHON=python3.12 make install    another interpreter (3.11 or newer)
#   VENV=/somewhere make install      another place for the environment
#   ARGS="-k promote -x" make test    more arguments for pytest
#   WORKERS=0 make test               one test after the other, in one process

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(name)),$(name))) python3.11)
ARGS ?=
# Tests wait for servers more than they compute. A file's tests stay in one process; the long ones come first.
WORKERS ?= 3
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := $(VENV)/bin
# The stamp carries a hash of what decides the environment: a second call does nothing, a change reinstalls.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')

.PHONY: help install demo demo-ui demo-stop test test-fast lint format constraints env ui build bench clean clean-all

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv with everything for the demo, the tests and development

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: no $(PYTHON) here; install Python 3.11 or newer, or name one: make install PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make install PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into $(VENV) with $$("$(PYTHON)" --version): about 4 minutes the first time ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@torch="torch==$$(sed -n 's/^torch==//p' constraints.txt)+cpu"; \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$torch" 2>/dev/null \
	  || echo "pip finds no $$torch here (no other build is tried: those bring gigabytes of CUDA); its tests are skipped"
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: install  ## Run the whole story on real flights, print a summary, stop everything
	@$(BIN)/python -m demo

demo-ui: install  ## The same, and leave Airflow and MLflow running to look at
	@$(BIN)/python -m demo --keep

demo-stop: install  ## Stop what demo-ui left running
	@$(BIN)/python -m demo --stop

test: install  ## Run every test: end to end, integration, unit
	@$(BIN)/python $(PYTEST) tests/e2e tests/integration tests/unit $(ARGS)

test-fast: install  ## Run the unit tests
	@$(BIN)/python $(PYTEST) tests/unit $(ARGS)

bench: install  ## Measure the artifact store beside others (ARGS="--help"; about 10 minutes)
	@$(BIN)/python -m benchmarks $(ARGS)

lint: install  ## Check style, formatting, types and the import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install  ## Let ruff format and fix what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# torch stays as it is: without +cpu, resolving it would download gigabytes of CUDA.
# setuptools comes with the environment on Python 3.11 and by dependencies later; 80 is the last with pkg_resources.
constraints:  ## Resolve all dependencies anew and pin them in constraints.txt
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT \
	&& "$(PYTHON)" -m venv "$$scratch" \
	&& "$$scratch/bin/python" -m pip install --quiet --requirement docker/requirements.txt --editable '.[dev]' \
	  'setuptools>=80,<81' \
	&& "$$scratch/bin/python" -m pip freeze --all --exclude-editable > "$$scratch/frozen" \
	&& sed -nE '/^(torch|mpmath|networkx|sympy)==/p' constraints.txt >> "$$scratch/frozen" \
	&& sed -n 's/^xgboost-cpu==/xgboost==/p' "$$scratch/frozen" > "$$scratch/twin" \
	&& { sed -n '/^#/p' constraints.txt; cat "$$scratch/frozen" "$$scratch/twin" \
	  | grep -E '^[A-Za-z0-9._-]+==[^ ]+$$' | grep -v '^pip==' | LC_ALL=C sort -fu; } > "$$scratch/new" \
	&& cp "$$scratch/new" constraints.txt
	@git --no-pager diff --stat -- constraints.txt

env:  ## Write .env with fresh secrets for docker-compose.yaml
	@"$(PYTHON)" docker/make_env.py

ui:  ## Build the script of the ML pages anew, which is checked in (needs Node 20.19 or newer)
	@cd ui && npm ci --silent && npm test --silent && npm run --silent build

build: install  ## Build the wheel and the source archive into dist/
	@$(BIN)/hatchling build

clean:  ## Remove caches, builds and the demo's files
	@if [ -x $(BIN)/python ] && [ -d .demo ]; then $(BIN)/python -m demo --stop || true; fi
	@rm -rf .demo dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean  ## Remove the environment too
	@rm -rf $(VENV)
