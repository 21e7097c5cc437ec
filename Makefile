# Thin names for the commands of the README. `make help` lists them.

PAPER  ?= salun
SCALE  ?= mini
CORES  ?= 2
PAPERS ?= $(PAPER)

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

# Rules call `python`, `snakemake` and `accelerate` by name.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON := .venv/bin/python

# Set up again when the lock or what is installed from it changes, not when a checkout touches the files.
DIGEST := $(shell cat requirements.lock pyproject.toml scripts/setup.sh | cksum | tr ' ' -)
READY  := .venv/.ready-$(DIGEST)

SNAKEFILES = Snakefile $(wildcard papers/*/Snakefile) $(wildcard workflows/*.smk)

.PHONY: help setup run mini test lint bench report clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Variables: PAPER=$(PAPER) SCALE=$(SCALE) CORES=$(CORES) PAPERS=\"$(PAPERS)\""

setup: $(READY)  ## create .venv from requirements.lock (Python >= 3.11 is all it needs)

$(READY):
	@bash scripts/setup.sh
	@rm -f .venv/.ready-* && touch $@

# The summary comes in any case: of a red run one wants to know what failed. Red stays red.
run: $(READY)  ## replicate PAPER at SCALE on CORES cores and say where the report is
	@snakemake $(PAPER) --cores $(CORES) --config scale=$(SCALE); run=$$?; \
	$(PYTHON) -m shared.results summary $(PAPER) $(SCALE); summary=$$?; \
	if [ $$run -ne 0 ]; then exit $$run; else exit $$summary; fi

mini: $(READY)  ## run several in one go: PAPERS="salun boundary"; shared stages are trained once
	@snakemake $(PAPERS) --cores $(CORES) --config scale=mini; run=$$?; summary=0; \
	for paper in $(PAPERS); do $(PYTHON) -m shared.results summary $$paper mini || summary=1; done; \
	if [ $$run -ne 0 ]; then exit $$run; else exit $$summary; fi

report: $(READY)  ## the board of all papers, from the records at hand
	@$(PYTHON) -m shared.results board

# Two pools of spinning threads on two cores are ten times slower than one thread each.
test: lint  ## lint, then every test: library, papers, engines and whole mini papers
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest

lint: $(READY)  ## ruff, mypy, snakefmt and Snakemake's own linter
	@ruff check .
	@ruff format --check --quiet . || { ruff format --check .; exit 1; }
	@mypy
	@snakefmt --check --compact-diff $(SNAKEFILES)
	@$(PYTHON) scripts/lint_workflow.py

bench: $(READY)  ## every benchmark; results in benchmarks/results/
	@for file in benchmarks/*.py; do echo "== $$file"; $(PYTHON) "$$file" || exit 1; done

clean:  ## remove caches only; results/, resources/ and .venv stay
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info
