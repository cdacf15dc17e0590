# Two commands do everything on a machine with Python 3.11 or newer and make:
#   make demo   set up, then show the whole thing: real Kafka, a real small model, sample messages
#   make test   set up, then run every test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command "make lock" --quiet

.PHONY: demo test check schema adapter bench chaos lock clean

demo: $(READY)
	@$(BIN)/clerk-worker demo

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(BIN)/python -m worker.records.output | cmp - docs/output.schema.json \
	  || { echo "docs/output.schema.json is out of date: make schema"; exit 1; }

# The published schema of the output record, from the code that writes it.
schema: $(READY)
	$(BIN)/python -m worker.records.output > docs/output.schema.json

# The adapter that ships with the project, trained anew (docs/demo-adapter.md).
adapter: $(READY)
	base=$$($(BIN)/python -c 'from worker.demo.base_model import ensure_base_model as e; print(e())') \
	  && $(BIN)/clerk-trainer train --recipe config/trainer.toml --base "$$base" \
	  --out worker/demo/adapter --replace

bench: $(READY)
	$(BIN)/python -m tests.bench

# Kills workers and brokers with -9 under load, with the real engine (docs/guarantees.md).
chaos: $(READY)
	$(BIN)/python -m tests.chaos

$(READY): pyproject.toml locks/bootstrap.txt locks/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "filing-clerk needs Python 3.11 or newer; '$(PYTHON)' is older: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (once; about 6 GB, most of it PyTorch)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r locks/cpu.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

lock: $(READY)
	printf 'uv==0.13.9\n' | $(BIN)/uv pip compile - $(LOCK_OPTIONS) --output-file locks/bootstrap.txt
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra demo --extra trainer --extra embeddings \
	  --extra bench --extra dev \
	  --override locks/overrides.txt $(LOCK_OPTIONS) --output-file locks/cpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra trainer --extra qlora $(LOCK_OPTIONS) --output-file locks/gpu.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
