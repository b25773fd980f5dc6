# make demo: the main job, end to end.   make test: every test.   Each installs what it needs, and removes nothing.
.DEFAULT_GOAL := help
# What apt would do is checked before anything else is made.
.NOTPARALLEL:
# Debian's Python, as in the plugin.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=
RENEW ?=
COMMAND ?=
# The root directory of the Docker for the demo; build/docker-26.1 and build/docker-newest are made if they do not exist.
DOCKER_ROOT ?=

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# The plugin's packages first, in its versions, so that what is tested is what is shipped.
$(VENV)/.installed: pyproject.toml packaging/plugin.lock packaging/snapshotter.lock scripts/install-packages
	scripts/install-packages plugin
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement packaging/plugin.lock \
		--requirement packaging/snapshotter.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: venv
venv: $(VENV)/.installed  ## Create the virtual environment
	@$(BIN)/python -m compileall -q src  # every mount would do it where PYTHONDONTWRITEBYTECODE is set

.PHONY: test-packages
test-packages:
	@scripts/install-packages plugin demo docker test

.PHONY: demo
demo:  ## Put an image into a repository and run it lazily in a Docker of its own (IMAGE=… COMMAND=… DOCKER_ROOT=…)
	@MAKE='$(MAKE)' DOCKER_ROOT='$(DOCKER_ROOT)' scripts/run-demo \
		$(if $(IMAGE),--image '$(IMAGE)') $(if $(COMMAND),--command '$(COMMAND)')

.PHONY: plugin
plugin: venv  ## Build the Docker plugin in build/: directory, tarball, bill of materials (RENEW=1: newest Debian packages)
	scripts/build-plugin $(if $(RENEW),--renew)

.PHONY: snapshotter-image
snapshotter-image: plugin  ## Build the image that puts the snapshotter onto the nodes of a cluster, an OCI archive in build/
	scripts/build-snapshotter-image

.PHONY: plugin-updates
plugin-updates: venv  ## Say whether packages in the plugin are behind
	$(BIN)/python scripts/plugin-updates

.PHONY: lock
lock: venv  ## Write packaging/*.lock with the newest Python packages for the plugin and the snapshotter
	$(BIN)/python scripts/lock-plugin

.PHONY: docs-cli
docs-cli: venv  ## Write docs/cli.md from the help of the commands
	$(BIN)/python scripts/generate-cli-docs >docs/cli.md.new
	mv docs/cli.md.new docs/cli.md

.PHONY: lint
lint: venv  ## Run ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: test
test: test-packages venv  ## Run all tests
	@$(MAKE) --no-print-directory lint & lint=$$!; $(MAKE) --no-print-directory plugin; built=$$?; wait $$lint && exit $$built
	scripts/run-tests $(BIN)/python --durations 20

.PHONY: fuzz
fuzz: venv  ## Run the fuzz tests with 100 000 inputs each instead of 5 000
	FUZZ_INPUTS=100000 $(BIN)/python -m pytest --timeout 0 --durations 10 -rP -m fuzz

NEWER_DOCKER := build/docker-26.1
ON_DOCKERS := tests/conformance tests/end_to_end/test_commands.py tests/end_to_end/test_truth.py \
	tests/end_to_end/test_crowd.py

$(NEWER_DOCKER): scripts/make-docker-root
	scripts/make-docker-root trixie $@

# Docker 28 or later and containerd 2.
NEWEST_DOCKER := build/docker-newest

$(NEWEST_DOCKER): scripts/make-docker-root
	scripts/make-docker-root testing $@

# A node of a cluster, which systemd-nspawn boots.
KUBERNETES_NODE := build/kubernetes-node

$(KUBERNETES_NODE): scripts/make-docker-root
	scripts/make-docker-root testing $@ systemd-sysv dbus

.PHONY: test-matrix
test-matrix: test-packages snapshotter-image $(NEWER_DOCKER) $(NEWEST_DOCKER) $(KUBERNETES_NODE)  ## Run the tests of Docker's and containerd's commands with several versions, and the snapshotter on a Kubernetes node; build plugin and image twice
	@# What containerd's own conformance suite is compiled from.
	scripts/extend-docker-root $(NEWEST_DOCKER) golang-go golang-github-containerd-containerd-dev
	$(BIN)/python -m pytest $(ON_DOCKERS) tests/containerd/test_cri.py
	$(BIN)/python -m pytest $(ON_DOCKERS) tests/containerd --docker-root $(NEWER_DOCKER)
	$(BIN)/python -m pytest tests/containerd tests/end_to_end/test_demo.py --docker-root $(NEWEST_DOCKER)
	FETCH_PACKAGES=1 $(BIN)/python -m pytest tests/scripts/test_build_plugin.py tests/scripts/test_plugin_updates.py \
		tests/scripts/test_build_snapshotter_image.py tests/kubernetes/test_installer.py \
		tests/containerd/test_kubernetes_node.py

.PHONY: reliability
reliability: test-packages venv  ## Run the fault-injection tests and write their table to docs/reliability.md
	KILLS=100 OUTAGE=60 RELIABILITY_TABLE=docs/reliability.md $(BIN)/python -m pytest tests/reliability

.PHONY: endurance
endurance: test-packages plugin $(NEWEST_DOCKER)  ## Kill each process of plugin, snapshotter and engines fifty times, and a soak of half an hour (SOAK=seconds)
	KILLS=50 $(BIN)/python -m pytest --timeout 0 -s tests/end_to_end/test_kill.py
	KILLS=50 $(BIN)/python -m pytest tests/containerd/test_kills.py --docker-root $(NEWEST_DOCKER)
	SOAK=$(or $(SOAK),1800) $(BIN)/python -m pytest -s tests/endurance

.PHONY: bench
bench: test-packages plugin $(NEWEST_DOCKER)  ## Run the benchmarks, as ratios against a peer in the same run
	@# Another lazy snapshotter, as source, and its client.
	scripts/extend-docker-root $(NEWEST_DOCKER) golang-go golang-github-containerd-stargz-snapshotter-dev stargz-snapshotter
	$(BIN)/python -m benchmarks

.PHONY: clean
clean:  ## Remove build products
	rm -rf build dist $(VENV)
