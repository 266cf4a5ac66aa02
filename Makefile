# Two commands are all a user needs: `make demo` and `make test`. Both share one environment.
SHELL := bash
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
# Each worker and many a test start Python anew: compiled modules are kept even where the environment
# says not to.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 2

.PHONY: help install install-dev demo demo-photos test test-all newest lint bench soak fuzz clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## Make the virtual environment (.venv)
	@.ci/install.sh $(VENV)

install-dev:  ## The same with the tools for tests and lint
	@.ci/install.sh $(VENV) dev

demo: install  ## Extract, train and compare on the embedded data set and model
	@$(BIN)/featcache extract --backbone tiny --dataset fieldguide --views 10
	@$(BIN)/heads train zero-shot --dataset fieldguide --backbone tiny --quiet
	@$(BIN)/heads train tip-adapter --dataset fieldguide --backbone tiny --shots 16 --quiet
	@$(BIN)/heads train cmm --dataset fieldguide --backbone tiny --shots 16 --quiet
	@$(BIN)/heads compare --dataset fieldguide --backbone tiny --where

demo-photos: install  ## From a folder of photographs to the classes of new ones, on drawn photographs
	@$(BIN)/python .ci/photographs.py build/photographs
	@cd build/photographs && $(abspath $(BIN))/featcache extract --backbone tiny --dataset folder:photos
	@$(BIN)/heads train auto --dataset photos --backbone tiny
	@cd build/photographs && $(abspath $(BIN))/heads predict last new/ --top 2

test: install-dev  ## Run the tests, but for the long ones
	@$(TESTS) -m "not long"

test-all: install-dev  ## Run all tests
	@$(TESTS)

newest:  ## Run the backbone tests against the newest release of open_clip
	@VENV=$(VENV) .ci/newest

lint: install-dev  ## ruff, mypy strict, import layers, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell featcache heads cli docs benchmarks README.md CHANGELOG.md

bench: install-dev  ## Measure anew what docs/benchmarks.md says of drawn data (long)
	@$(BIN)/python benchmarks/accuracy.py
	@$(BIN)/python benchmarks/methods.py
	@$(BIN)/python benchmarks/sharpened.py
	@$(BIN)/python benchmarks/cycles.py patches heads last-block test episodes
	@$(BIN)/python benchmarks/certainty.py
	@$(BIN)/python benchmarks/imbalance.py
	@$(BIN)/python -m benchmarks.orders --datasets fieldguide
	@$(BIN)/python benchmarks/queries_together.py
	@$(BIN)/python -m benchmarks.auto --work build/auto
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.auto_cost
	@$(BIN)/python benchmarks/training.py
	@$(BIN)/python benchmarks/grids.py
	@$(BIN)/python benchmarks/solvers.py
	@$(BIN)/python benchmarks/searches.py
	@$(BIN)/python benchmarks/parts.py
	@$(BIN)/python benchmarks/coverage.py
	@$(BIN)/python benchmarks/extract.py
	@$(BIN)/python benchmarks/forecast.py
	@$(BIN)/python benchmarks/scale.py
	@$(BIN)/python benchmarks/reading.py
	@$(BIN)/python benchmarks/store.py
	@$(BIN)/python benchmarks/transport.py
	@$(BIN)/python benchmarks/anchors.py
	@$(BIN)/python benchmarks/linear_algebra.py
	@$(BIN)/python benchmarks/flips.py --trials 10000
	@$(BIN)/python benchmarks/flips.py --trials 10000 --read
	@$(BIN)/python benchmarks/flips.py --trials 10000 --runs

soak: install-dev  ## Kill extractions and cut the power, and take them up again, for ten minutes
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --minutes 10

fuzz: install-dev  ## Bend files until a reader breaks, for ten minutes
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py --minutes 10

clean:  ## Remove the environment and tool caches; features and results stay
	@if [ -e $(VENV) ] && [ ! -e $(VENV)/.made-by-make ]; then \
	  echo "$(VENV) was not made by make; leaving it" >&2; else rm -rf $(VENV); fi
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
