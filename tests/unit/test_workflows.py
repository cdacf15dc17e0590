"""What runs on the host's machines and before a commit: nothing that moves by itself, no rights."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    """Return a workflow."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


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
    """A tag can be moved to other code; the comment says which version the commit is. Workflows of
    this repository are those of the same commit."""
    used = re.findall(r"uses: (?!\./)(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), action


@each_workflow
def test_it_may_read_and_no_more(path: Path) -> None:
    """No token stays in the checkout, and every job ends. A job that signs may prove who it is, and
    waits until a person lets it. One that opens a pull request may write a branch and that."""
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if "uses" in job:  # another workflow, of which this test asks the same
            assert "permissions" not in job
            continue
        signs = any(".ci/release sign" in step.get("run", "") for step in job["steps"])
        opens = any("gh pr create" in step.get("run", "") for step in job["steps"])
        assert ("permissions" in job, "environment" in job) == (signs or opens, signs), name
        if opens:
            assert job["permissions"] == {"contents": "write", "pull-requests": "write"}
            # YAML reads the key "on" as true.
            assert set(dict[Any, Any](workflow)[True]) == {"schedule", "workflow_dispatch"}
        elif signs:
            assert job["permissions"] == {"contents": "read", "id-token": "write"}
        assert job["timeout-minutes"] <= 240, name
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, name


@each_workflow
def test_what_it_runs_is_there(path: Path) -> None:
    """Targets of the Makefile, scripts of .ci, and other workflows."""
    jobs = read(path)["jobs"].values()
    runs = "\n".join(step.get("run", "") for job in jobs for step in job.get("steps", ()))
    for target in re.findall(r"^make ([a-z-]+)", runs, re.MULTILINE):
        assert target in TARGETS
    for script in re.findall(r"^\.ci/\w+", runs, re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111, script
    assert all((ROOT / job["uses"]).is_file() for job in jobs if "uses" in job)


@pytest.mark.parametrize(("name", "script"), [("ci", ".ci/run"), ("nightly", ".ci/nightly")])
def test_everything_is_run_in_the_end(name: str, script: str) -> None:
    """For a change what is quick enough, at night the rest, for a release both."""
    jobs = read(ROOT / ".github" / "workflows" / f"{name}.yml")["jobs"]
    assert script in [step.get("run") for job in jobs.values() for step in job["steps"]]
    release = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    proofs = {key for key, job in release.items() if job.get("uses", "").endswith(f"/{name}.yml")}
    assert proofs
    assert proofs <= set(release["images"]["needs"])


def test_every_long_test_is_run_at_night() -> None:
    """Each file that has one is named by a command of ``make nightly``, or its folder is, and is
    left out of one command only where it has another."""
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", "nightly"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    ran: set[Path] = set()
    for line in told.splitlines():
        words = shlex.split(line) if " -m pytest " in line else []
        named = [ROOT / word for word in words if word.startswith("tests/")]
        left_out = [ROOT / word.removeprefix("--ignore=") for word in words if "--ignore=" in word]
        ran |= {
            file
            for path in named
            for file in (path.rglob("test_*.py") if path.is_dir() else [path])
            if file not in left_out
        }
    long = re.compile(r"\bmark\.long\b|\bmostly_long\b")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    having = {path for path in files if long.search(path.read_text(encoding="utf-8"))}
    assert len(having) > 20
    assert having <= ran


def test_a_release_is_proved_scanned_and_signed_before_it_is_for_anybody() -> None:
    """In this order, for each image that the Dockerfile makes; the chart comes after its images."""
    jobs = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert jobs["chart"]["needs"] == "images"
    text = (ROOT / "Dockerfile").read_text("utf-8")
    final = re.findall(r"^FROM (?:runtime|worker-cpu) AS (\S+)", text, re.MULTILINE)
    assert sorted(jobs["images"]["strategy"]["matrix"]["target"]) == sorted(final)
    runs = "\n".join(step.get("run", "") for step in jobs["images"]["steps"])
    order = ["REQUIRE_DIGEST=1", "tests.release.licences", ".ci/release scan", "docker push"]
    order += [".ci/release sign", ".ci/release verify"]
    places = [runs.index(word) for word in order]
    assert places == sorted(places)
