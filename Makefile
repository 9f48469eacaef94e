# PYTHON       the interpreter that makes the environment (3.11 or newer)
# TORCH_INDEX  where torch comes from, if not from pip's own configuration. On Linux, PyPI's torch
#              is the CUDA build (gigabytes); for a machine without a GPU:
#              make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help setup setup-demo demo app docs test lint format clean

help:
	@echo 'make demo     install the core and rank the shipped policies (needs no simulator)'
	@echo 'make app      install gradio too and look at what lies in runs/ in the browser'
	@echo 'make setup    install everything for development, simulator included'
	@echo 'make docs     the documentation as a site, in site/'
	@echo 'make test     run the tests          make lint    ruff and mypy'
	@echo 'variables: PYTHON=python3.12  TORCH_INDEX=https://download.pytorch.org/whl/cpu'

# The stamps make each installation run once, and again when what they name changes.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "worldeval needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'installing worldeval into $(VENV) (a few minutes the first time)'
	@$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo 'installing the simulator and the development tools'
	@$(INSTALL) -e '.[dev,sim,app,docs,groot]'
	@touch $@

setup: $(VENV)/.dev

setup-demo: $(VENV)/.core

demo: $(VENV)/.core
	$(BIN)/worldeval demo

$(VENV)/.app: $(VENV)/.core
	@echo 'installing gradio for the app'
	@$(INSTALL) -e '.[app]'
	@touch $@

app: $(VENV)/.app
	@mkdir -p runs
	$(BIN)/worldeval app

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# The documentation as a site in site/; a broken link fails.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -d site

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
