# Every target sets up what it needs. `make demo` and `make test` are the two to know.
PYTHON  ?= python3
VENV    ?= .venv
CACHE   ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/personavec
BASE    ?= $(CACHE)/SmolLM2-135M-Instruct
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# The package pv, put together from the folders that hold it: what an editable install imports.
PACKAGE := $(addprefix .dev/pv/,__init__.py __main__.py py.typed)
ROOMS   := $(addprefix .dev/pv/,cli registry vecstore)
TEST_ARGS ?=
EXPERIMENTS ?= all
MAZE ?=

.PHONY: install links base demo test lint format docs bench bench-merge experiments maze clean help
.DEFAULT_GOAL := help

help:            ## Show this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(STAMP) ## Make .venv with the pinned set of packages

$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard vecstore/native/*.[ch]) | links
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pv needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	@touch $@

# git keeps these links; an sdist does not (hatchling would follow them), so they are made where missing.
links: $(PACKAGE) $(ROOMS)

$(PACKAGE): .dev/pv/%:
	@mkdir -p $(@D)
	ln -sfn ../../api/$* $@

$(ROOMS): .dev/pv/%:
	@mkdir -p $(@D)
	ln -sfn ../../$* $@

base: $(BASE)/model.safetensors ## Fetch the embedded model and dequantise it (cached)

$(BASE)/model.safetensors: | $(STAMP)
	$(BIN)/python examples/embedded_model.py $(BASE)

demo: $(STAMP) base ## The main job, end to end, on the embedded model
	$(BIN)/python examples/demo.py --base $(BASE)

# One torch thread in each of two workers: two processes with two threads each would wait for one another.
test: $(STAMP) base ## All tests
	OMP_NUM_THREADS=1 PV_TEST_BASE=$(BASE) $(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

lint: $(STAMP)   ## ruff, mypy --strict (the tests too), the rooms' contract, the generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate_cli.py --check

format: $(STAMP) ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)   ## Generate docs/cli.md from the commands themselves
	$(BIN)/python docs/generate_cli.py

bench: $(STAMP) base ## The measurements behind docs/log.md
	PV_TEST_BASE=$(BASE) $(BIN)/python -m benchmarks

bench-merge: $(STAMP) base $(VENV)/mergekit ## Merging, beside mergekit
	PV_TEST_BASE=$(BASE) PV_MERGEKIT=$(VENV)/mergekit $(BIN)/python -m benchmarks merge

# LGPL: measured beside us and asked for its numbers, never imported by pv.
$(VENV)/mergekit: | $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ mergekit==0.1.5 immutables==0.21

experiments: $(STAMP) base ## The open questions of training: EXPERIMENTS="rank --quick" for one
	PV_TEST_BASE=$(BASE) $(BIN)/python -m examples.experiments $(EXPERIMENTS)

maze: $(STAMP)   ## Steering a maze agent: trains five small nets, measures, draws (MAZE=--quick for seconds)
	$(BIN)/python -m examples.maze $(MAZE)

clean:           ## Remove the environment and what tools left
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
