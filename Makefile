# `make` lists what there is to make.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup dev demo test test-unit test-integration test-docker test-faults \
	test-cluster cluster-up cluster-down test-machine image manifests bench bench-machine fuzz coverage \
	lint types format clean

BIN := .venv/bin
PYTEST := $(BIN)/pytest
ARGS ?=
PYTHON_DIRS := src tests $(wildcard bench)
SHELL_FILES = $(shell grep -lE '^\#!.*[/ ](sh|bash)$$' .ci/run scripts/* 2>/dev/null)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'ARGS goes to pytest: make test-unit ARGS="-k meminfo -x"'

setup: ## Make .venv with .venv/bin/procscope; needs Python 3.11 or newer and nothing else
	@scripts/setup-venv

dev: ## Add the tools of uv.lock to .venv, for tests, lint and types
	@scripts/setup-dev

demo: setup ## Show host and container side by side, then clean up
	@scripts/demo

test: dev ## Run every level that this machine can run, and name the others
	@scripts/install-test-packages integration docker faults cluster machine
	$(PYTEST) tests/unit tests/integration tests/docker tests/faults tests/cluster tests/machine \
		$(ARGS)

test-unit: dev ## Formulas and parsers on recorded data; no root
	$(PYTEST) tests/unit $(ARGS)

test-integration: dev ## Real mounts and cgroups on this kernel; root
	@scripts/install-test-packages integration
	$(PYTEST) tests/integration $(ARGS)

test-docker: dev ## The engine of Debian's docker.io, images made here; root
	@scripts/install-test-packages docker
	$(PYTEST) tests/docker $(ARGS)

test-faults: dev ## Kill, stop, starve and replace the daemon under readers; root
	@scripts/install-test-packages faults
	$(PYTEST) tests/faults $(ARGS)

test-cluster: dev ## A Kubernetes of one node, built once and started here; root
	@scripts/install-test-packages cluster
	$(PYTEST) tests/cluster $(ARGS)

cluster-up: dev ## Start that Kubernetes and leave it running, also for test-cluster
	@scripts/install-test-packages cluster
	$(BIN)/python -m tests.cluster.harness up

cluster-down: dev ## Stop it and remove everything of it
	$(BIN)/python -m tests.cluster.harness down

test-machine: dev ## A virtual machine with cgroup v2, more CPUs, swap and PSI; root
	@scripts/install-test-packages machine
	$(PYTEST) tests/machine $(ARGS)

image: dev ## The image for Kubernetes, to build/procscope-image.tar; BASE=local needs no registry
	@scripts/image $(ARGS)

manifests: dev ## Write deploy/manifests from the chart; needs helm, or HELM=/path/to/it
	@scripts/manifests $(ARGS)

bench: dev ## What reads cost beside lxcfs and the kernel; root: make bench ARGS="--json FILE"
	PYTHONDONTWRITEBYTECODE=1 "$$(scripts/bench-python)" -m bench $(ARGS)

bench-machine: dev ## The same on cgroup v2, an emulated machine with Debian sid's kernel and lxcfs
	@scripts/install-test-packages machine
	$(BIN)/python -m tests.machine.harness run --suite sid --kernel-suite sid --cpus 2 --memory 3072 \
		--package lxcfs --package gcc --package libc6-dev --project --timeout 3000 \
		"cd /opt/procscope && python3 -m bench $(ARGS)"

fuzz: dev ## Coverage-guided fuzzing with atheris: make fuzz ARGS="meminfo --seconds 60"
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv sync --quiet --locked --group fuzz --group dev --all-extras
	$(BIN)/python -m tests.fuzz.run $(if $(ARGS),$(ARGS),all --seconds 600)

coverage: dev ## Branch coverage of unit and integration, child processes included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/unit tests/integration $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: dev ## ruff, layers, spelling, shell scripts
	$(BIN)/ruff check $(PYTHON_DIRS)
	$(BIN)/ruff format --check $(PYTHON_DIRS)
	$(BIN)/lint-imports
	$(BIN)/typos
	$(BIN)/shellcheck $(SHELL_FILES)

types: dev ## mypy --strict and pyright, tests included
	$(BIN)/mypy
	$(BIN)/pyright

format: dev ## Rewrite the sources in the project's format
	$(BIN)/ruff check --fix $(PYTHON_DIRS)
	$(BIN)/ruff format $(PYTHON_DIRS)

clean: ## Remove .venv, caches and whatever a build or a test left here
	rm -rf .venv build dist htmlcov fuzz-found .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache tests/machine/.cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
