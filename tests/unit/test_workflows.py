"""What runs on the host's machines and before a commit: nothing that moves by itself, no rights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    """Return a workflow."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_there_is_one() -> None:
    """A renamed folder does not make every check hold."""
    assert [path.name for path in WORKFLOWS] == ["ci.yml"]
    assert {"check", "unit", "demo"} <= set(TARGETS)


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        *(("vendor.github-workflows", path) for path in WORKFLOWS),
        ("vendor.dependabot", ROOT / ".github" / "dependabot.yml"),
    ],
    ids=lambda value: str(value).rpartition("/")[2],
)
def test_the_file_keeps_to_its_schema(schema: str, file: Path) -> None:
    """As it is published by schemastore."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_workflow
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """A tag can be moved to other code; the comment says which version the commit is."""
    used = re.findall(r"uses: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), action


@each_workflow
def test_it_may_read_and_no_more(path: Path) -> None:
    """No job asks for more, no token stays in the checkout, and every job ends."""
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert "permissions" not in job, name
        assert job["timeout-minutes"] <= 120, name
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, name


@each_workflow
def test_what_it_runs_is_there(path: Path) -> None:
    """Targets of the Makefile and scripts of .ci; everything is run in the end."""
    runs = [step.get("run", "") for job in read(path)["jobs"].values() for step in job["steps"]]
    for target in re.findall(r"^make ([a-z-]+)", "\n".join(runs), re.MULTILINE):
        assert target in TARGETS
    assert ".ci/run" in runs
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_hooks_fetch_nothing() -> None:
    """Before a commit the project's own tools run, in the versions of its lock."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            assert hook["entry"].startswith(".venv/bin/"), hook["id"]
