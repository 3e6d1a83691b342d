# Everything happens in .venv, which `make setup` fills with the exact versions of requirements.lock and requirements-torch.lock.
PYTHON ?= python3
CONFIG ?= ant.yaml
ARGS ?=
PROCESSES ?=
THREADS ?= 1
JOBS ?= auto
BENCH ?=
PYTHONS ?=
VERSIONS ?=

BIN := .venv/bin
GPU_PYTHON ?= $(BIN)/python
STAMP := .venv/.installed
TESTS := tests

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-matrix reliability lint format types bench gpu-check docs lock audit clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## create .venv and install the locked versions (nothing to do when up to date)

$(STAMP): requirements.lock requirements-torch.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; name another with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-torch.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP) ## train; four-agent Ant, or what CONFIG=icg.yaml says; PROCESSES=2 uses two cores or GPUs, ARGS="..." adds options
	$(BIN)/python main.py fit --config $(CONFIG) $(if $(PROCESSES),--trainer.devices $(PROCESSES)) $(ARGS)

test: $(STAMP) ## the fast tests, on all cores (JOBS=1 for one)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope $(TESTS)

test-slow: $(STAMP) ## the tests that learn something
	$(BIN)/python -m pytest -m "slow and not benchmark" $(TESTS)

test-matrix: $(STAMP) ## the fast tests with other rounding; PYTHONS="python3.12", VERSIONS="lowest highest", TOGETHER=1, TESTS=tests/nn
	$(BIN)/python -m tests.matrix --pythons "$(PYTHONS)" --versions "$(VERSIONS)" $(if $(TOGETHER),--together) $(TESTS)

reliability: $(STAMP) ## inject every fault and write docs/reliability.md, about forty minutes; MOMALIT_SOAK_MINUTES=60 trains for an hour
	rm -f docs/reliability.md
	$(BIN)/python -m pytest -q -m fault --reliability docs/reliability.md $(TESTS)

bench: $(STAMP) ## the speed of every stage on one thread, or THREADS=2; BENCH=NAME picks some; PEERS=1 adds other designs
	$(if $(PEERS),BENCHMARK_PEERS=1) BENCHMARK_THREADS=$(THREADS) $(BIN)/python -m pytest -q -m benchmark --benchmark-only --benchmark-quiet \
		--benchmark-json=benchmark.json -k "$(BENCH)" $(TESTS)/benchmarks
	@$(BIN)/python -m tests.benchmarks.table benchmark.json

gpu-check: $(STAMP) ## on a machine with a GPU: its tests, the speed of every stage on it, short runs of Reacher and Ant
	$(GPU_PYTHON) -m pytest -q -m gpu $(TESTS)
	$(GPU_PYTHON) -m tests.benchmarks.gpu
	for config in reacher ant; do \
		$(GPU_PYTHON) main.py fit --config $$config.yaml --config overlays/quick.yaml --trainer.accelerator gpu --trainer.callbacks '[]' || exit; \
	done

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy on the three packages
	$(BIN)/mypy

docs: $(STAMP) ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lock: $(STAMP) ## add the hashes to requirements.lock; needs uv
	$(BIN)/python -m tests.lock

audit: $(STAMP) ## look the locked versions up in the database of vulnerabilities; needs pip-audit
	pip-audit --no-deps --requirement requirements.lock
	pip-audit --no-deps --requirement requirements-torch.lock

clean: ## remove .venv and caches (runs and datasets stay)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info dist site
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
