# make demo: the service with a demonstration project.  make test: the whole suite, lint and types.  make docs: the
# documents as a site.  All install the versions of constraints.txt, which `make lock` writes; `make test-latest` and
# `make test-oldest` run the suite with the newest of everything, and with the lowest versions that setup.cfg allows.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The version that constraints.txt is made with, and the lowest that setup.cfg allows.
TORCH = torch==2.13.0

# The processes that tests start would compile all of Labeler again, each of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types docs docs-links reference screenshots lock test-latest test-oldest clean

demo: $(VENV)/.base
	@$(BIN)/labeler demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Labeler needs Python 3.11 or newer; this is ' + sys.version.split()[0])"
	@$(PYTHON) -m venv $(VENV)

# Constraints by the environment hold for what builds a package, too; older versions of pip read the first name alone.
locked_by = PIP_CONSTRAINT=$(1) PIP_BUILD_CONSTRAINT=$(1)
INSTALL = $(call locked_by,constraints.txt) $(BIN)/python -m pip install --quiet --editable

$(VENV)/.base: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "Installing Labeler into $(VENV) (once, about a minute) ..."
	@$(INSTALL) .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	$(INSTALL) ".[dev,local]"
	@touch $@ $(VENV)/.base $(VENV)/.docs

$(VENV)/.docs: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	$(INSTALL) ".[docs]"
	@touch $@ $(VENV)/.base

# The documents as a site, into build/site; a link, a heading or an image that is not there fails. The suite does it too.
docs: $(VENV)/.docs
	$(SPHINX) -b html . build/site
	cp build/site/README.html build/site/index.html

# Every link to the web, which takes the network: not a part of the suite.
docs-links: $(VENV)/.docs
	$(SPHINX) -b linkcheck . build/links

SPHINX = $(BIN)/python -m sphinx --fail-on-warning --quiet -c docs -d build/doctrees

# docs/reference.md, from the code, and the Korean lines of docs/troubleshooting.md.
reference:
	$(BIN)/python docs/make_reference.py

# Every screen, to be looked at, into build/screenshots: both languages, light and dark, from a phone to a wide window.
screenshots: $(VENV)/.dev
	$(BIN)/python tests/make_screenshots.py

# For every platform: on Linux with x86_64, where all extras can be installed, and without what only this one needs.
lock: FRESH = .venv-lock
lock:
	$(fresh)
	$(FRESH)/bin/python -m pip install --quiet $(TORCH)
	$(FRESH)/bin/python -m pip install --quiet --editable ".[dev,local]"
	@{ echo "# The versions that belong together: the suite passes with them. Written by 'make lock', not by hand: a fresh"; \
	   echo "# virtual environment, $(TORCH) first, then the newest of everything else that every extra asks for."; \
	   $(FRESH)/bin/python -m pip list --format freeze --exclude pip --exclude labeler-rag | sed 's/+.*//'; } > $(FRESH)/constraints.txt
	mv $(FRESH)/constraints.txt constraints.txt
	rm -rf $(FRESH)

test-latest: FRESH = .venv-latest
test-latest:
	$(fresh)
	$(FRESH)/bin/python -m pip install --quiet $(TORCH)
	$(FRESH)/bin/python -m pip install --quiet --editable ".[dev,local]"
	$(suite)

test-oldest: FRESH = .venv-oldest
test-oldest:
	$(fresh)
	$(PYTHON) .ci/oldest.py > $(FRESH)/oldest.txt
	$(call locked_by,$(FRESH)/oldest.txt) $(FRESH)/bin/python -m pip install --quiet --editable ".[dev,local]"
	$(suite)

define fresh
rm -rf $(FRESH)
$(PYTHON) -m venv $(FRESH)
endef

define suite
PYTHONPATH=.ci $(FRESH)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -W default --disable-warnings -p count_warnings
endef

clean:
	rm -rf .venv .venv-* $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
