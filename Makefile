# `make demo` and `make test` each set up everything they need in .venv; they need Python 3.11 or newer and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PROMPT ?= a lion on a blue background

.PHONY: demo test check style docs clean

.venv/.package: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch --editable .
	touch $@

.venv/.test: .venv/.package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

.venv/.docs: .venv/.package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

demo: .venv/.package  ## A picture from a sentence: make demo PROMPT="two copies of cat on green"
	$(BIN)/python examples/generate.py "$(PROMPT)" --num_candidates 16 --output outputs/demo.png

test: .venv/.test  ## The tests, on the CPU
	$(BIN)/python -m pytest

check: .venv/.test  ## Lint, writing nothing
	$(BIN)/ruff format --check src tests examples docs
	$(BIN)/ruff check src tests examples docs

style: .venv/.test  ## Format and fix
	$(BIN)/ruff format src tests examples docs
	$(BIN)/ruff check --fix src tests examples docs

docs: .venv/.docs  ## The documentation, into site/
	$(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml

clean:
	rm -rf .venv site build dist
