"""Who may import what: one third-party client a file, layers without a cycle, one thing shared."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.imports import (
    ROOT,
    all_imports,
    importers,
    is_within,
    loaded_imports,
    module_graph,
    reachable,
)
from tests.unit.conftest import is_slow

STANDARD = set(sys.stdlib_module_names)
UNIT = ROOT / "tests" / "unit"
PROGRAMS = ("worker", "trainer", "desk")

HEAVY = (
    "accelerate", "cleanlab", "onnx", "pandas", "peft", "pyarrow", "sklearn", "transformers",
)  # fmt: skip
"""What takes one to ten seconds to import."""

OWNERS = {
    # Its types never leave the stream.
    "confluent_kafka": ("worker/common", "worker/stream", "desk/stream"),
    "cachetools": ("worker/common",),
    # Another engine is other files there: from settings to vLLM's, its processes, and the port.
    "vllm": ("worker/engine",),
    "onnxruntime": ("worker/common", "worker/engine", "trainer/model"),
    "prometheus_client": ("worker/observe", "desk/accuracy", "desk/web"),
    "opentelemetry": ("worker/observe",),
    "cleanlab": ("trainer/check",),
    "genai_prices": ("trainer/teacher",),
    "jinja2": ("trainer/model", "trainer/report", "desk/web"),
    "mlflow": ("trainer/tracking",),
    "charset_normalizer": ("worker/common",),
    "ftfy": ("worker/common",),
    "obstore": ("worker/common",),
    "oras": ("trainer/store",),
    "ray": ("worker/offline",),
    "openpyxl": ("worker/common",),
    "openai": ("trainer/teacher",),
    "peft": ("trainer/model",),
    "presidio_analyzer": ("trainer/dataset",),
    "pydantic_settings": ("worker/common",),
    "py3langid": ("trainer",),
    "pyarrow": ("worker/common", "worker/offline"),
    "scipy": ("trainer/dataset", "trainer/statistics"),
    "sklearn": (
        "trainer/advice",
        "trainer/check",
        "trainer/duel",
        "trainer/model",
        "trainer/statistics",
        "trainer/suggest",
    ),
    "spacy": ("trainer/dataset",),
    "tokenizers": ("trainer/model", "worker/engine"),
    "transformers": ("trainer/model", "worker/common"),
    "yaml": ("trainer/dataset",),
    "sqlalchemy": ("desk/store",),
    "alembic": ("desk/store",),
    "pg8000": ("desk/store",),
    "starlette": ("desk/web",),
    "uvicorn": ("desk/web",),
    "argon2": ("desk/auth",),
    "authlib": ("desk/auth",),
    "httpx2": ("desk/auth", "worker/common"),
    "joserfc": ("desk/auth",),
    "typer": ("worker/cli", "trainer/cli", "desk/cli"),
}
"""The packages in which a third-party client is imported, and that alone know its types."""

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
    # Files and what is in them, for anyone who reads them.
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
    # A teacher needs no model of ours, and gives labels for training alone.
    "trainer.teacher": (
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
    assert "worker.core.assignment" in reachable(graph, "worker.app") - graph["worker.app"]
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


@pytest.mark.parametrize(
    ("package", "top"),
    [
        ("confluent-kafka", "worker"),
        ("torch", "trainer"),
        ("transformers", "trainer"),
        ("peft", "trainer"),
        ("vllm", "worker"),
        ("structlog", "worker"),
        ("pydantic-settings", "worker"),
        ("testcontainers", "tests"),
    ],
)
def test_what_the_project_is_built_from_is_declared_and_imported(package: str, top: str) -> None:
    """Not only brought along by something else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert any(Requirement(line).name == package for line in declared)
    assert importers(top, package.replace("-", "_"))


@pytest.mark.parametrize("client", OWNERS)
def test_each_client_is_imported_in_its_package_alone(client: str) -> None:
    """What a client looks like is known in one place, and can change there. The demo brings its own
    topics, messages and models."""
    files = {path for program in PROGRAMS for path in importers(program, client)}
    assert files
    owners = tuple(f"{package}/" for package in (*OWNERS[client], "worker/demo"))
    assert [path for path in sorted(files) if not path.startswith(owners)] == []


@pytest.mark.slow
def test_a_worker_that_serves_loads_nothing_of_the_demo_or_of_tracing() -> None:
    """The demo brings a broker, a base model and a browser; tracing that is off is free."""
    code = "import sys, worker.cli.main, worker.app, worker.cli.load, worker.offline.classify\n"
    code += "unused = ('worker.demo', 'opentelemetry')\n"
    code += "print([name for name in sys.modules if name.startswith(unused)])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("library", HEAVY)
def test_a_library_that_takes_seconds_is_loaded_where_it_is_needed(library: str) -> None:
    """A command that refuses its input, and a test of what is near, do not wait for it."""
    files = sorted((ROOT / "trainer").rglob("*.py"))
    early = {path for path in files for name in loaded_imports(path) if is_within(name, library)}
    assert early == set()


@pytest.mark.parametrize("library", sorted({*HEAVY} - {"onnx"}))
def test_no_quick_test_is_collected_with_a_library_that_takes_seconds(library: str) -> None:
    """Each process of ``make unit`` loads every test, and few of the tests need it."""
    files = [*UNIT.rglob("*.py"), *(ROOT / "tests" / "support").glob("*.py")]
    files = sorted(path for path in files if not is_slow(path))
    early = {path for path in files for name in loaded_imports(path) if is_within(name, library)}
    assert early == set()


@pytest.mark.slow
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


SHARED = ("worker.contract", "worker.common")


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_import_contract_and_common_of_each_other_and_nothing_else(program: str) -> None:
    """What they agree on, and what they would otherwise copy; all else is in files or topics."""
    others = [other for other in PROGRAMS if other != program]
    for path in sorted((ROOT / program).rglob("*.py")):
        for name in all_imports(path):
            if any(is_within(name, other) for other in others):
                assert any(is_within(name, shared) for shared in SHARED), f"{path} imports {name}"


def test_the_contract_imports_the_standard_library_alone() -> None:
    """It stands on nothing, so that everything can stand on it."""
    for path in sorted((ROOT / "worker" / "contract").rglob("*.py")):
        for name in all_imports(path):
            known = is_within(name, "worker.contract") or name.partition(".")[0] in STANDARD
            assert known, f"{path} imports {name}"


def test_what_is_common_imports_no_program() -> None:
    """The contract and third-party packages, as every program may."""
    for path in sorted((ROOT / "worker" / "common").rglob("*.py")):
        for name in all_imports(path):
            if any(is_within(name, program) for program in PROGRAMS):
                assert any(is_within(name, shared) for shared in SHARED), f"{path} imports {name}"


@pytest.mark.parametrize("fake", ["worker/stream/fake.py", "worker/engine/fake.py"])
def test_fakes_need_no_service(fake: str) -> None:
    """Anyone who builds on the loop can test without a broker or a GPU."""
    tops = {name.partition(".")[0] for name in all_imports(ROOT / fake)}
    assert tops <= STANDARD | {"worker"}
