# Everything a contributor or a CI machine runs. `make` alone lists it.
#
# Needs: Python 3.11 or newer with venv, a C compiler with libc's headers, make, git.
# PYTHON=/path/to/python3.12 chooses the interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

export PYTHON
# Hundreds of tests start a Python; without this each would compile Sandyard anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
ARGS ?=

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

setup: ## make .venv with Sandyard and its development tools; does nothing when it is current
	@scripts/setup

demo: setup ## a short tour on this machine
	@$(BIN)/python scripts/demo.py

test: setup lint ## everything CI runs; for root that is the tests as an ordinary user too
	@if [ "$$(id -u)" = 0 ]; then scripts/fuzz-beside scripts/test-both; \
	  else scripts/fuzz-beside $(BIN)/python -m pytest; fi

quick: setup ## the tests alone, as you, without installation; ARGS="-k name" narrows them
	@$(BIN)/python -m pytest -m "not soak and not install" $(ARGS)

lint: setup ## style, types, import arrows, and the C program with warnings as errors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@[ "$$(uname -s)" != Linux ] || $(MAKE) --silent -C native check

format: setup ## let ruff fix and format what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

soak: setup ## the tests that run for minutes; for root as an ordinary user too
	@failed=0; \
	if [ "$$(id -u)" = 0 ]; then scripts/test-as-user -m soak $(ARGS) || failed=$$?; fi; \
	scripts/with-machine $(BIN)/python -m pytest -m soak $(ARGS) || failed=$$?; \
	exit $$failed

ESCAPES := tests/escape/test_attacks.py::test_attack tests/escape/test_work.py::test_work

attacks: setup ## every attempt to get out, counted; for root as an ordinary user too
	@failed=0; \
	$(BIN)/python -m pytest -q --tb=short $(ESCAPES) $(ARGS) || failed=$$?; \
	if [ "$$(id -u)" = 0 ]; then \
	  scripts/test-as-user -q --tb=short $(ESCAPES) $(ARGS) || failed=$$?; fi; \
	exit $$failed

bench: setup ## measure, and compare with bubblewrap and openai-agents' local sandbox
	@scripts/setup dev bench
	@$(BIN)/python -m benchmarks $(ARGS)

docs: setup ## the documentation's site, into build/site
	@$(BIN)/python scripts/site.py

analyze: ## gcc's analyser, cppcheck and clang-tidy over the C program (slow)
	@$(MAKE) --silent -C native analyze

READERS := tar zip v4a unified

fuzz: setup ## the control protocol's ends, readers of archives and patches, FUZZ_SECONDS (20) each; FUZZ_SEED=n
	@$(MAKE) --silent -C native/fuzz run FUZZ_SECONDS=$${FUZZ_SECONDS:-20} FUZZ_SEED=$${FUZZ_SEED:-$$RANDOM}
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-20} $(BIN)/python -m pytest -m soak tests/fuzz -k "liars or events" $(ARGS)
	@scripts/setup dev fuzz
	@for target in $(READERS); do $(BIN)/python -m tests.fuzz.guided $$target \
	  -max_total_time=$${FUZZ_SECONDS:-20} -seed=$${FUZZ_SEED:-$$RANDOM}; done

lock: ## renew scripts/constraints.txt
	@scripts/lock

cross: ## the C program for x86-64 and ARM64, static, into build/cross
	@scripts/cross

clean: ## remove everything that was built or cached, .venv too
	rm -rf .venv build dist src/sandyard/_bin .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo test quick lint format soak attacks bench docs analyze cross fuzz lock clean
