# make demo: the service with a demonstration project.  make test: the whole suite, lint and types.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
E5 = $(shell $(PYTHON) -c "import platform; print('[e5]' if platform.system() == 'Linux' and platform.machine() == 'x86_64' else '')")

.PHONY: demo test lint types clean

demo: $(VENV)/.base
	@$(BIN)/labeler demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Labeler needs Python 3.11 or newer; this is ' + sys.version.split()[0])"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python setup.cfg pyproject.toml
	@echo "Installing Labeler into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --editable ".$(E5)" || $(BIN)/python -m pip install --quiet --editable .
	@touch $@

# torch first: the other extras are then satisfied by it.
$(VENV)/.dev: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[dev,e5,local]"
	@touch $@ $(VENV)/.base

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
