# make demo: the main job, end to end.   make test: every test.   Each installs what it needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=
COMMAND ?=

.PHONY: help
help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml scripts/install-packages
	scripts/install-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: venv
venv: $(VENV)/.installed  ## Install the system packages and the virtual environment

.PHONY: demo
demo: venv plugin  ## Convert an image and run it thin in a Docker of its own (IMAGE=… COMMAND=… for another)
	$(BIN)/python -m demo $(if $(IMAGE),--image '$(IMAGE)') $(if $(COMMAND),--command '$(COMMAND)')

.PHONY: plugin
plugin: venv  ## Build the Docker plugin: build/plugin/ and build/cvmfs-graphdriver-plugin-VERSION.tar.gz
	scripts/build-plugin

.PHONY: lint
lint: venv  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: test
test: lint plugin  ## All tests
	$(BIN)/python -m pytest

.PHONY: bench
bench: venv plugin  ## Benchmarks, as ratios against a peer in the same run
	$(BIN)/python -m benchmarks

.PHONY: clean
clean:  ## Remove what was built
	rm -rf build dist $(VENV)
