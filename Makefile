PYTHON ?= python3
PYTEST := -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)
STAMP := $(VENV)/installed
# Whole words beginning with "-e" so that pip installs the core and every plugin folder in place.
EDITABLE := -e .[dev] $(foreach file,$(PLUGINS),-e $(dir $(file)))

.PHONY: install quickstart test check format docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(PLUGINS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt $(EDITABLE)
	touch $(STAMP)

quickstart: install
	$(BIN)/dinomx run examples/quickstart.toml --overwrite

test: install
	$(BIN)/python $(PYTEST)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python $(PYTEST) -m "not slow"

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python -m docs.generate
	$(BIN)/dinomx plugins --write-registry registry.toml

clean:
	rm -rf $(VENV) runs
