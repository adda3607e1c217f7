# Everything a newcomer runs; needs Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n auto --dist loadscope

.PHONY: demo test acceptance lint format clean

demo: $(VENV)/.installed
	$(BIN)/cryodask demo --overwrite

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not acceptance"

acceptance: $(VENV)/.installed-dev
	$(PYTEST) -m acceptance --durations=0

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[test,lint]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) cryodask-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
