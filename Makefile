# `make demo` and `make test` each set up everything they need in .venv; they need Python 3.11 or newer and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PROMPT ?= a lion on a blue background

.PHONY: demo test test-hf check types style build docs clean

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

# The common tests of transformers come with its source distribution; those of diffusers do not (see
# docs/pages/compatibility.md).
HF_TESTS := .cache/hf_tests

$(HF_TESTS)/.fetched: tests/hf_common/sources.txt .venv/.test
	rm -rf $(HF_TESTS)/transformers*
	mkdir -p $(HF_TESTS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --require-hashes --requirement $< --dest $(HF_TESTS)
	for file in $(HF_TESTS)/*.tar.gz; do $(BIN)/python -m tarfile --extract $$file $(HF_TESTS); done
	touch $@

test-hf: $(HF_TESTS)/.fetched  ## transformers' and diffusers' own common tests on our classes
	$(BIN)/python -m pytest tests/hf_common

check: .venv/.test types  ## Lint and types, writing nothing
	$(BIN)/ruff format --check src tests examples docs
	$(BIN)/ruff check src tests examples docs

types: .venv/.test  ## The public names, as a type checker sees them
	$(BIN)/pyrefly check

style: .venv/.test  ## Format and fix
	$(BIN)/python tests/write_stubs.py
	$(BIN)/ruff format src tests examples docs
	$(BIN)/ruff check --fix src tests examples docs

build: .venv/.test  ## The wheel and the source distribution, into dist/, installed and tried
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/python tests/check_distributions.py

docs: .venv/.docs  ## The documentation, into site/
	$(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml

clean:
	rm -rf .venv site build dist
