# Everything a person or CI runs. Needs git, make and Python >= 3.11; `make setup` fetches the rest into .venv.

VENV := .venv
READY := $(VENV)/.ready
DATASET ?= inverted_double_pendulum-medium-replay
DEMO = $(VENV)/bin/damorl train damo --dataset $(DATASET) --preset quick --seeds 0 1 2 --resume
WORKERS ?= 2
# One thread per test process: the workers already fill the cores.
PYTEST = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NPROC=1 JAX_PLATFORMS=cpu $(VENV)/bin/python -m pytest
RELEASE_PYTHONS ?= python3.11 python3.12 python3.13
PYTHONS = $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
# uv trusts the certificates this machine trusts, as pip does, and never fetches a Python of its own.
export UV_SYSTEM_CERTS ?= 1
export UV_PYTHON_DOWNLOADS = never

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check lint types audit format lock docs release bench soak gpu clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make .venv with the locked dependencies, damorl itself and the developer's tools
	@:

demo: setup  ## set up, train DAMO on a real MuJoCo data set and score it in the simulator
	@$(DEMO)

test: setup  ## set up and run the fast tests
	@$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-slow: setup  ## run the slow tests (learning curves, full sizes)
	@$(PYTEST) -m slow $(ARGS)

check: lint types audit test  ## what CI runs after `make docs`: lint, formatting, types, known vulnerabilities, tests

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/uv lock --check --quiet || { echo "uv.lock does not match pyproject.toml: run 'make lock'." >&2; exit 1; }

types: setup
	@$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

audit: setup  ## look the locked packages up among the known vulnerabilities; without a network it says so
	@$(VENV)/bin/python release/audit.py $(VENV)/bin/uv $(ARGS)

format: setup  ## rewrite the sources in the one format
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .

lock: setup  ## bring uv.lock up to date after a change of dependencies
	@$(VENV)/bin/uv lock --no-config

docs: setup  ## build the documentation into build/site; warnings and links that lead nowhere are errors
	@$(VENV)/bin/python -m sphinx -W --keep-going --quiet -c docs/site docs build/site
	@$(VENV)/bin/python docs/site/check_links.py build/site

release: setup  ## into dist: sdist, wheel, SBOM; the wheel is tried out on each Python here. Publishes nothing
	@$(VENV)/bin/python release/build.py $(VENV)/bin/uv dist $(RELEASE_PYTHONS)

bench: setup  ## measure training speed on this machine (ARGS=--json for programs)
	@$(VENV)/bin/damorl bench $(ARGS)

soak: setup  ## bad files, kills, full disks, clocks, memory (ARGS='--kills 50 --disks'; writes soak.json)
	@$(VENV)/bin/python -m benchmarks.soak $(ARGS)

gpu:  ## the GPU kit: needs no .venv, only a Python with jax (ARGS='--minutes 20')
	@$(or $(PYTHON),python3) benchmarks/gpu.py $(ARGS)

clean:  ## delete .venv and every cache; runs and data stay
	rm -rf $(VENV) build dist docs/generated .pytest_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT
	find damorl tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python that is new enough and can make a virtual environment.
first_python = $(shell for p in $(PYTHONS); do $$p -c "$(1)" 2>/dev/null && echo $$p && break; done)
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
COMPLETE_PYTHON = $(call first_python,import venv; import ensurepip; $(NEW_ENOUGH))
NO_PYTHON = $(if $(call first_python,$(NEW_ENOUGH)),\
	$(call first_python,$(NEW_ENOUGH)) lacks ensurepip and so cannot make .venv: install it (Debian: apt install python3-venv),\
	damorl needs Python 3.11 or newer and none of these is one: $(PYTHONS); install it) or give another with PYTHON=/path/to/python.

# A .venv that was never finished, was moved, or lost its Python is made anew; otherwise only what changed is installed.
MADE_IN := $(shell $(VENV)/bin/python -c "print(open('$(READY)').read())" 2>/dev/null)
ifneq ($(MADE_IN),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): pyproject.toml uv.lock damorl/_version.py
ifneq ($(MADE_IN),$(CURDIR))
	@$(if $(COMPLETE_PYTHON),,echo "$(strip $(NO_PYTHON))" >&2; exit 1)
	@echo "making $(VENV) with $$($(COMPLETE_PYTHON) --version)"
	@$(COMPLETE_PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -o 'uv==[0-9.]*' pyproject.toml)"
endif
	@$(VENV)/bin/uv sync --frozen
	@printf %s "$(CURDIR)" > $@
