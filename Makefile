# Every target sets up the virtual environment by itself when there is none, or
# when the files that describe it have changed. Another place or interpreter:
#   make test VENV=../venv PYTHON=python3.12
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3

# Processes that run the tests, each on one thread; 0 for this process alone.
WORKERS ?= 2

BIN := $(VENV)/bin
PY := "$(BIN)/python"

# A space in a target's name has to be escaped, one in a command quoted.
empty :=
space := $(empty) $(empty)
STAMPS := $(subst $(space),\ ,$(VENV))
READY := $(STAMPS)/.ready
DOCS_READY := $(STAMPS)/.docs-ready

.PHONY: help venv demo test slow architectures lint format architecture types docs build clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F': ' '{ printf "make %-12s %s\n", $$1, $$2 }'

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "captum_aml needs Python 3.10 or later; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv "$(VENV)"
	$(PY) -m pip install -c constraints.txt -e ".[all,dev]"
	@touch "$@"

$(DOCS_READY): $(READY)
	$(PY) -m pip install -c constraints.txt -e ".[docs]"
	@touch "$@"

venv: $(READY)  ## set up the virtual environment

demo: $(READY)  ## explain some sentences with each method, offline
	"$(BIN)/captum-aml" demo

test: $(READY)  ## run the tests, without the slow ones
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal

slow: $(READY)  ## run the slow tests
	$(PY) -m pytest -m slow

architectures: $(READY)  ## explain tiny models of every architecture of transformers
	$(PY) -m pytest -m "slow or not slow" tests/text/test_architectures.py

lint: $(READY)  ## check style, formatting and the directions of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	"$(BIN)/lint-imports" --no-cache --no-logo

format: $(READY)  ## mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

architecture: $(READY)  ## measure packages, imports, files that a call runs, start-up
	$(PY) -m tests.architecture

types: $(READY)  ## check the types
	$(PY) -m mypy

docs: $(DOCS_READY)  ## build the documentation; a warning is an error
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

build: $(READY)  ## build the source distribution and the wheel
	$(PY) -m build

clean:  ## delete what was built and cached, not the virtual environment
	rm -rf build dist *.egg-info docs/_build docs/auto_examples .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find captum_aml tests examples docs -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
