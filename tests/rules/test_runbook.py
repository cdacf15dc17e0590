"""The runbook: its commands exist, and it explains every exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.live import alerts
from tests.rules.night import scenes
from worker import errors

RUNBOOK = Path("docs/operations.md")
TEXT = RUNBOOK.read_text(encoding="utf-8")
EVIDENCE = Path("docs/evidence.md")


@pytest.mark.parametrize("program", ["worker", "trainer"])
def test_every_command_exists(program: str) -> None:
    """Its sub-commands and options exist."""
    lines = re.findall(rf"clerk-{program} ([a-z][a-z-]*)([^`\n]*)", TEXT)
    assert lines
    for command, rest in set(lines):
        done = subprocess.run(
            [sys.executable, "-m", program, command, "--help"],
            capture_output=True,
            text=True,
            check=False,
            env={"COLUMNS": "200", "NO_COLOR": "1"},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        for option in re.findall(r"--[a-z-]+", rest.split("#")[0]):
            assert option in done.stdout, f"{command} {option}"


TABLE = r"^\| (\d+) \|"


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (RUNBOOK, TABLE),
        (Path("worker/cli/main.py"), r"(?:codes: |· |^)(\d+) \w"),
        (Path("helm/filing-clerk/templates/NOTES.txt"), r"\b(\d+) (?:for|where)\b"),
    ],
    ids=lambda given: given.name if isinstance(given, Path) else "",
)
def test_every_exit_code_is_explained(path: Path, pattern: str) -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    text = path.read_text(encoding="utf-8")
    assert codes <= {int(code) for code in re.findall(pattern, text, re.MULTILINE)}


def test_the_restart_section_explains_each_exit_code() -> None:
    description = alerts()["ClerkWorkerRestarts"]["annotations"]["description"]
    assert set(re.findall(r"\b(\d) \w", description)) == {"2", "3", "4", "5", "7"}


def test_the_nights_table_lists_the_scenes(tmp_path: Path) -> None:
    """One row for each alert, in the rules' order, with the scenes in which it must fire."""
    text = EVIDENCE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (Clerk\w+) \|([^|]*)\|", text, re.MULTILINE)
    assert [name for name, _ in rows] == list(alerts())
    listed = {name: set(re.findall(r"`([a-z-]+)`", where)) for name, where in rows}
    played = scenes(tmp_path)
    assert listed == {
        name: {scene.job for scene in played if name in scene.expected} for name in alerts()
    }
