"""The budgets of code lines."""

from __future__ import annotations

from pathlib import Path

from tests.house import over_budget

CODE = '"""A docstring."""\n\nimport os\n\n# A comment.\nx = os.name\ny = [\n    1,\n]\n'


def test_what_exceeds_its_budget_or_has_none_is_named(tmp_path: Path) -> None:
    for name in ("worker/core/a.py", "worker/core/__init__.py", "desk/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CODE)
    budgets = tmp_path / "pyproject.toml"
    budgets.write_text('[tool.filing-clerk.code-lines]\n"worker.core" = 8\ndesk = 4\n')
    assert over_budget(tmp_path) == []
    budgets.write_text('[tool.filing-clerk.code-lines]\n"worker.core" = 7\n')
    assert over_budget(tmp_path) == [
        "worker.core: 8 code lines, budget 7",
        "desk: 4 code lines, budget none",
    ]
