"""Who may import what: one third-party client a file, and one thing shared by the programs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Give every module a file imports, wherever in it, and whether for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield one.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield node.module, id(node) in typing_only
            for one in node.names:
                yield f"{node.module}.{one.name}", id(node) in typing_only
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), False


def importers(top: str, package: str) -> set[str]:
    """Files of our ``top`` directory that import ``package`` or anything in it."""
    return {
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / top).rglob("*.py"))
        for name, _ in imports(path)
        if name == package or name.startswith(f"{package}.")
    }


def test_the_rules_look_at_real_files() -> None:
    """A renamed directory does not make every rule hold."""
    assert len(list((ROOT / "worker").rglob("*.py"))) > 30
    assert len(list((ROOT / "trainer").rglob("*.py"))) > 10
    assert importers("worker", "worker.contract")
    assert importers("trainer", "worker.contract")


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
    assert loaded - {"worker"} <= set(sys.stdlib_module_names)


def test_the_core_imports_no_third_party_code() -> None:
    """What decides, orders and counts can be tested without Kafka, vLLM or a clock."""
    standard = set(sys.stdlib_module_names)
    for path in sorted((ROOT / "worker" / "core").rglob("*.py")):
        tops = {name.partition(".")[0] for name, _ in imports(path)}
        assert tops <= standard | {"worker"}, path
        assert "time" not in tops, f"{path} reads the clock by itself"
        # Through our own modules neither: records are the widest that it may use.
        ours = {name for name, _ in imports(path) if name.startswith("worker.")}
        for name in ours:
            assert not name.startswith(("worker.stream.kafka", "worker.engine.vllm", "worker.app"))


OWNERS = {
    # Its types never leave the stream; the demo brings its own topics and messages.
    "confluent_kafka": {
        "worker/stream/kafka.py",
        "worker/stream/kafka_range.py",
        "worker/stream/kafka_topics.py",
    },
    # Another engine is other files: from settings to vLLM's, its processes, and the port.
    "vllm": {
        "worker/engine/vllm_config.py",
        "worker/engine/vllm_core.py",
        "worker/engine/vllm_engine.py",
    },
    "prometheus_client": {"worker/observe/registry.py"},
    "opentelemetry": {"worker/observe/tracing.py"},
}
"""The files that import a third-party client, and the only ones that know its types."""


@pytest.mark.parametrize("client", OWNERS)
def test_each_client_is_imported_by_its_owners_alone(client: str) -> None:
    """What a client looks like is known in one place, and can change there."""
    found = {one for one in importers("worker", client) if "worker/demo/" not in one}
    assert found == OWNERS[client]


def test_nothing_of_tracing_is_loaded_where_it_is_off() -> None:
    """Off is the default, and free."""
    code = "import sys, worker.app; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def test_the_worker_never_imports_the_trainer_or_peft() -> None:
    """It serves adapters and cannot make one."""
    assert importers("worker", "trainer") == set()
    assert importers("worker", "peft") == set()


def test_the_trainer_never_imports_vllm_or_kafka() -> None:
    """It runs offline."""
    assert importers("trainer", "vllm") == set()
    assert importers("trainer", "confluent_kafka") == set()


def test_the_trainer_shares_the_contract_and_nothing_else() -> None:
    """What both must agree on is in one place."""
    for path in sorted((ROOT / "trainer").rglob("*.py")):
        for name, _ in imports(path):
            if name == "worker" or name.startswith("worker."):
                assert f"{name}.".startswith("worker.contract."), f"{path} imports {name}"
    for path in sorted((ROOT / "worker" / "contract").rglob("*.py")):
        for name, _ in imports(path):
            assert not name.startswith("worker.") or name.startswith("worker.contract"), path


@pytest.mark.parametrize("fake", ["worker/stream/fake.py", "worker/engine/fake.py"])
def test_fakes_need_no_service(fake: str) -> None:
    """Whoever builds on the loop can test without a broker or a GPU."""
    tops = {name.partition(".")[0] for name, _ in imports(ROOT / fake)}
    assert tops <= set(sys.stdlib_module_names) | {"worker"}
