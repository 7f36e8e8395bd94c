# The whole developer interface. CI calls the same targets.
PYTHON ?= python3
# On Linux the index's torch carries CUDA (about 3 GB). TORCH="torch==2.13.0 --index-url …" chooses another build.
TORCH ?= torch==2.13.0
# Two processes, a file at a time; JOBS= runs the tests in one. In the order of their names, long files come early.
JOBS ?= -n 2 --dist loadfile --no-loadscope-reorder
BIN := .venv/bin
# Nothing is built here but groundup itself.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all:

.PHONY: help setup lock demo test check bench torture docs site release clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

setup: .venv/.done ## make the virtual environment in .venv, and compile the kernels

.venv/.done: pyproject.toml requirements/lock.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "groundup needs Python 3.11 or newer; set PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import torch' 2>/dev/null || echo "installing PyTorch; a build with CUDA is about 3 GB (TORCH=... chooses another)"
	$(PIP) --no-deps $(TORCH)
	$(PIP) --no-deps --require-hashes -r requirements/lock.txt
# Now that PyTorch's other dependencies come from the lock, only its CUDA libraries are left.
	$(PIP) $(TORCH)
	$(PIP) --no-deps --no-build-isolation -e .
# Else the first run does it: numba keeps them for this machine.
	@echo "compiling kernels"
	@$(BIN)/python -c 'from groundup.refine.rehearsal import PARTS, rehearse; list(map(rehearse, PARTS))'
	@touch $@

lock: setup ## renew requirements/lock*.txt, check binaries; ARGS=--upgrade takes the newest versions
	$(BIN)/python -m scripts.lock $(ARGS)

demo: setup ## raw text to a trained, evaluated, exported model in ten minutes
	$(BIN)/groundup run recipes/starter.toml

test: setup ## the tests; GROUNDUP_TEST_DATA=DIR adds those on larger real data
	$(BIN)/python -m pytest -m "not torture" $(JOBS)

check: setup ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

torture: setup ## kills, full disks, bombs, fuzzing, twenty times the examples of the property tests: a night
	$(BIN)/python -m pytest -m torture
	GROUNDUP_EXAMPLES=20 $(BIN)/python -m pytest -m "hypothesis and not torture" $(JOBS)

bench: setup ## every figure in the README, written to benchmarks/
	$(BIN)/python -m benchmarks

docs: setup ## pages made from code, what the demo printed, and pictures of its pages (needs chromium)
	$(BIN)/python -m scripts.recipe_page
	$(BIN)/python -m benchmarks.readme
	$(BIN)/python -m benchmarks.screens

site: setup ## the documentation as a site in build/site, with search; fails on a dead link
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site

release: setup ## wheel, sdist, bill of materials, hashes, changelog's part in dist/; uploads nothing
	$(BIN)/python -m scripts.release

clean: ## remove the virtual environment and caches, never a run
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
