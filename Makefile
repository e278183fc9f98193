# `make help` lists the targets. Everything happens in this folder: .venv, .ros, env.sh, out.
SHELL := /bin/bash
PYTHON ?= python3
# Passed on to pytest, for example `make test ARGS="-k bank"`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup test test-all lint format demo doctor clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make the environment, build sam2s_msgs, write env.sh (seconds when nothing changed)
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "set-up: $(PYTHON) is missing: install CPython 3.10 to 3.13, or name one that is" \
	        "there, for example \`make setup PYTHON=python3.11\`" >&2; exit 2; }
	@"$(PYTHON)" -m scripts.setup_env

# `make test` leaves out what takes minutes (marked `slow`); `make test-all` does not.
SLOW ?= and not slow

# Tests marked `serial` measure time or load both cores: alone, and not slowed by coverage.
test: setup  ## lint, types, all tests, coverage
	@. ./env.sh && status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadgroup -m "not serial $(SLOW)" --durations=12 --cov --cov-report=term $(ARGS) \
	    || status=1; \
	pytest -m serial $(ARGS) || [ $$? -eq 5 ] || status=1; \
	exit $$status

test-all: SLOW =
test-all: test  ## `make test`, and the tests that take minutes too

lint: setup  ## ruff and mypy only
	@. ./env.sh && ruff check . && ruff format --check . && mypy

format: setup  ## let ruff rewrite the code
	@. ./env.sh && ruff check --fix . && ruff format .

demo: setup  ## the whole system on simulated endoscopy; results in out/demo
	@. ./env.sh && python -m sam2s_ros.demo $(ARGS)

doctor: setup  ## what this machine can do
	@. ./env.sh && sam2s doctor

clean:  ## remove results, caches and colcon's folders
	rm -rf out build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean  ## remove the environment too
	rm -rf .venv .ros env.sh *.egg-info training/*.egg-info
