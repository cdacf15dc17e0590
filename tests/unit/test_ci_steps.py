"""How .ci/run takes its steps: what fails fails the run, and nothing that was started stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(script: str, folder: Path) -> tuple[int, str]:
    """Source the steps and take these; return how it ended, and what it printed. ``$NOTE`` is a
    file in ``folder``."""
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\nsource .ci/steps\n{script}"],
        cwd=ROOT,
        env={**os.environ, "NOTE": str(folder / "note")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_step_that_fails_is_the_last(tmp_path: Path) -> None:
    """Its status is the run's, and it is named."""
    status, said = run("step one sh -c 'exit 7'\nstep two true", tmp_path)
    assert status == 7
    assert "== one failed; all: " in said
    assert "== two" not in said


def test_one_in_the_background_that_fails_ends_the_run(tmp_path: Path) -> None:
    """Before the next step, and where it is waited for; a function that fails in its middle too."""
    broken = "broken() { false; echo went on; }\nbackground two broken\n"
    for script in (broken + "finish two", broken + "step one sleep 1\nstep three true"):
        status, said = run(script, tmp_path)
        assert status == 1
        assert "== two failed; all: " in said
        assert "went on" not in said
        assert "== three" not in said
