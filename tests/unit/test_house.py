"""``make house`` counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

from tests.house import Counts, count, one_importer

MODULE = '''"""A module.

Of two lines.
"""

import os  # why
from dataclasses import (
    dataclass,
)

# A reason.


@dataclass(frozen=True)
class Point:
    """A place."""

    x: int  # metres
    """From the left."""
    text: str = """one
    two"""


def path() -> str:
    """Return it."""
    from pathlib import Path

    return str(
        Path(os.curdir)
    )
'''


def test_code_is_what_remains_without_blanks_comments_docstrings_and_imports() -> None:
    """Five lines of the class, of which a string is two, and four of the function; one comment
    stands by itself."""
    assert count(MODULE) == Counts(modules=1, lines=30, code=9, comments=1, dataclasses=1)


def test_a_module_has_one_importer_wherever_the_import_is_written(tmp_path: Path) -> None:
    """Within a function too; by the name of its package, and not twice if it is imported twice."""
    files = {
        "worker/__init__.py": "",
        "worker/once.py": "",
        "worker/twice.py": "from worker import once\nimport worker.once\n",
        "desk/page.py": "def show():\n    from worker.twice import x\n",
        "trainer/train.py": "import worker.twice\nfrom desk.page import y\n",
        "tests/test_it.py": "import trainer.train\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert one_importer(tmp_path) == ["desk.page", "worker.once"]
