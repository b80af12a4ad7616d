# make train: from a fresh machine to a trained recognizer. Needs Python 3.11 or later and a package index.
PYTHON ?= python3
WORKERS ?= auto
BIN := .venv/bin
READY := .venv/.ready
# Two busy processes on few cores: without this torch's threads spin at barriers and run ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE
# Tests start many processes; without bytecode files, each of them would compile torch and Lightning for 15 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup train test test-slow lint format check docs bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## build .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python %d.%d is too old; 3.11 or later is needed: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

train: $(READY) ## train model=crnn data=synthetic, 5 minutes on 2 cores
	$(BIN)/python train.py experiment=synthetic $(ARGS)

test: $(READY) ## the fast tests, a worker a core; for one of them: make test WORKERS=0 ARGS="-k NAME"
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(READY) ## the slow tests: minutes of training
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY) ## style, spelling, layers, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY) ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test ## what CI runs

docs: $(READY) ## the documentation, site/index.html; a broken link or reference is an error
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet docs site

bench: $(READY) ## throughput of the parts, as ratios in one run
	$(BIN)/python tests/speed.py $(ARGS)

lock: $(READY) ## pin the newest versions of what pyproject.toml asks for
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --quiet --upgrade --output-file requirements.lock

clean: ## remove .venv, caches and the site; runs stay
	rm -rf .venv site docs/reference .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
