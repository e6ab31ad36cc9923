# Two commands matter: `make demo` and `make test`. Everything they need is installed by them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] < (3,14))' 2>/dev/null && echo $$p && break; done)
STAMP := $(VENV)/.installed
export PYTHONPATH := tests
CHAOS_SEEDS ?= 2000

.PHONY: help install system check lint types unit test demo airflow bench chaos docs ui clean

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(STAMP) ## Make the virtual environment from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none was found: install python3 (Debian: apt-get install python3 python3-venv)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q >&2 && apt-get install -y -q python3-venv >&2; \
		else echo "the venv module is missing: apt-get install python3-venv" >&2; exit 2; fi; }
	@echo "installing into $(VENV) from constraints.txt (a few minutes the first time)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[postgres,celery,dev]'
	@touch $@

system: ## Install the system packages that the lab and the tests need (as root on Debian)
	@tests/install-system-packages

check: $(STAMP) lint types unit ## Linters, types and fast tests (under a minute once installed)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

unit: $(STAMP)
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow" tests/unit

test: $(STAMP) system lint types ## Everything: linters, types, fast, adapter, DAG and end-to-end tests
	@$(BIN)/patching validate tests/demo/policies
	@$(BIN)/pytest -q -n 2 --dist loadfile tests/unit
	@tests/allow-two-labs
	@$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder tests/adapters tests/dags
	@$(BIN)/pytest -q tests/e2e

demo: $(STAMP) system ## Patch a real lab fleet through Airflow: one good update, one bad one (EXIT=1: stop by itself)
	@$(BIN)/python -m demo $(if $(EXIT),--exit)

airflow: $(STAMP) ## Start an Airflow on dags/policies, for trying (Ctrl-C stops it)
	@$(BIN)/python -m patching_airflow.try_out

chaos: $(STAMP) system ## Kill, freeze, cut off and mislead the engine: CHAOS_SEEDS=2000 seeds, a tenth on SSH servers, a hundredth through Airflow
	@$(BIN)/python -m chaos --seeds $(CHAOS_SEEDS)
	@$(BIN)/python -m chaos --channel ssh --seeds $$(( ($(CHAOS_SEEDS) + 9) / 10 ))
	@$(BIN)/python -m chaos --channel airflow --seeds $$(( ($(CHAOS_SEEDS) + 99) / 100 ))

bench: $(STAMP) ## Measure, as ratios against a baseline of the same run
	@$(BIN)/python -m bench

docs: $(STAMP) ## Generate the reference pages from the code
	@$(BIN)/python -m patching.cli.reference
	@home=$$(mktemp -d); trap 'rm -rf "$$home"' EXIT; \
		AIRFLOW_HOME=$$home PYTHONPATH=dags $(BIN)/python -m patching_dags.reference

ui: ## Build the rollout page from its TypeScript
	@cd plugins/patching_airflow/ui/web && npm ci --silent && npm run --silent build

clean: ## Remove what was built and installed here
	@rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
