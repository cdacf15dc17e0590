"""The commands of an incident need only the packages of the smallest image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.unit.trainer.store.conftest import Clerk, MakeRun
from worker.contract.store import read_pointer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
SMALLEST = ROOT / "locks" / "image-tools.txt"

_RUN = """
import json, sys
before = set(sys.modules)
from typer.testing import CliRunner
from trainer.cli.main import app
for line in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, (line, done.output)
print(*{name.partition(".")[0] for name in sys.modules.keys() - before})
"""


def beyond_the_smallest_image(loaded: set[str]) -> set[str]:
    """Return the modules of packages that are not in image-tools.txt."""
    locked = set(re.findall(r"^([a-z0-9._-]+)==", SMALLEST.read_text("utf-8"), re.MULTILINE))
    assert {"pydantic", "typer"} <= locked
    return {
        f"{module} of {package}"
        for module, packages in packages_distributions().items()
        if module in loaded
        for package in packages
        if re.sub(r"[-_.]+", "-", package.lower()) not in locked | {"filing-clerk"}
    }


@pytest.mark.parametrize("canary", [False, True], ids=["current", "canary"])
def test_looking_at_a_store_and_going_back_needs_no_numpy(
    clerk: Clerk, make_run: MakeRun, store: Path, canary: bool
) -> None:
    """list, promote and rollback work in the image worker-tools, without NumPy, SciPy and
    PyTorch."""
    assert clerk("publish", make_run("one"))[0] == 0
    first = read_pointer(store)
    assert clerk("publish", make_run("two"), *(("--canary", 0.1) if canary else ()))[0] == 0
    at = ["--store", str(store)]
    commands = [["list", *at], ["rollback", *at, "--reason", "refunds"]]
    if canary:
        commands.insert(1, ["promote", *at])
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(commands)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "scipy", "torch"}
    assert beyond_the_smallest_image(loaded) == set()
    now = read_pointer(store)
    assert first is not None
    assert now is not None
    assert (now.digest, now.reason) == (first.digest, "refunds")
