"""How .ci/run takes its steps: what fails fails the run, and nothing that was started stays."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil
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


def test_each_step_says_how_long_it_took(tmp_path: Path) -> None:
    """One in the background too, whose output comes whole; and all of them together."""
    status, said = run(
        "background two sh -c 'echo a; sleep 1; echo b'\nstep one true\nfinish two", tmp_path
    )
    assert status == 0
    lines = [line.partition(": ")[0] for line in said.splitlines()]
    assert lines[:2] == ["== one", "== one"]
    assert lines[2:6] == ["== two, in the background", "a", "b", "== two"]
    assert lines[-1] == "== all"


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


def test_what_was_started_ends_with_the_run(tmp_path: Path) -> None:
    """Children of its children too, and one that does not listen to a request."""
    deaf = "trap : TERM; sleep 300 & echo $! $$ >$NOTE; while true; do wait; done"
    wait = "step seen sh -c 'until [ -s $NOTE ]; do sleep 0.1; done'"
    status, said = run(f"background two bash -c '{deaf}'\n{wait}\nstep one false", tmp_path)
    assert status == 1
    assert "== two: ended with the run" in said
    started = [int(word) for word in (tmp_path / "note").read_text().split()]
    until = time.monotonic() + 10
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, started))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for its status does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
