"""Opening an engine where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.engine import open as opening
from worker.errors import SettingsError


def test_without_vllm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "vllm_is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"filing-clerk\[gpu\].*filing-clerk\[cpu\]"):
        opening.open_engine(base=tmp_path, adapter=tmp_path, cache_dir=tmp_path)


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, worker.engine.open; "
        "print([one for one in ('vllm', 'torch', 'tokenizers', 'psutil') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.strip() == "[]"
