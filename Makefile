# make demo: the main job, end to end.   make test: every test.   Each installs what it needs.
.DEFAULT_GOAL := help
# Debian's, which the plugin has too.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=
COMMAND ?=

.PHONY: help
help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml scripts/install-packages
	scripts/install-packages
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: venv
venv: $(VENV)/.installed  ## Install the system packages and the virtual environment
	@$(BIN)/python -m compileall -q src  # every mount would do it where PYTHONDONTWRITEBYTECODE is set

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
	scripts/run-tests $(BIN)/python --durations 20

.PHONY: fuzz
fuzz: venv  ## The fuzz tests, with 100 000 inputs each instead of 5 000
	FUZZ_INPUTS=100000 $(BIN)/python -m pytest --timeout 0 --durations 10 -m fuzz

NEWER_DOCKER := build/docker-26.1
ON_DOCKERS := tests/conformance tests/end_to_end/test_commands.py tests/end_to_end/test_truth.py \
	tests/end_to_end/test_crowd.py

$(NEWER_DOCKER): scripts/make-docker-root
	scripts/make-docker-root trixie $@

.PHONY: test-matrix
test-matrix: plugin $(NEWER_DOCKER)  ## The tests of what Docker does, with Docker 20.10 and with 26.1
	$(BIN)/python -m pytest $(ON_DOCKERS)
	$(BIN)/python -m pytest $(ON_DOCKERS) --docker-root $(NEWER_DOCKER)

.PHONY: reliability
reliability: venv  ## The tests of faults; writes their table to docs/reliability.md
	KILLS=100 OUTAGE=60 RELIABILITY_TABLE=docs/reliability.md $(BIN)/python -m pytest tests/reliability

.PHONY: endurance
endurance: plugin  ## kill -9 fifty times each: the driver, dockerd, and both (takes long)
	KILLS=50 $(BIN)/python -m pytest --timeout 0 -s tests/end_to_end/test_kill.py

.PHONY: bench
bench: venv plugin  ## Benchmarks, as ratios against a peer in the same run
	$(BIN)/python -m benchmarks

.PHONY: clean
clean:  ## Remove what was built
	rm -rf build dist $(VENV)
