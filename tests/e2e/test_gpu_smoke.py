"""``make gpu-smoke`` on a CPU with a small shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

SMALL = ("--shape", "small", "--device", "cpu", "--messages", "64", "--compared", "8")


def run(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu", *arguments, *SMALL, "--work", str(work)],
        capture_output=True,
        text=True,
        check=False,
    )


def figures(work: Path, part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / f"{part}.json").read_text(encoding="utf-8"))
    return found


def test_the_whole_path_with_a_small_shape(tmp_path: Path) -> None:
    """Base, adapters, a training step, Kafka, transformers' scores, a swap; and a second
    adapter's scores are not accepted as the first's."""
    for part in ("trainer", "worker"):
        done = run(tmp_path, part)
        assert done.returncode == 0, done.stderr[-3000:]
    trained, served = figures(tmp_path, "trainer"), figures(tmp_path, "worker")
    assert trained["step"]["peak_bytes"] > 0
    assert trained["step"]["estimated_bytes"] > 0
    assert served["messages"] == 64
    for adapter in ("first", "second"):
        assert served[adapter]["mean"] < 0.25 * served[adapter]["moved"]
    assert min(served[name] for name in ("ready_s", "messages_per_s", "swap_s")) > 0
    assert served["memory_bytes"] > 1e8

    # Expect the second adapter's scores from the first: the comparison has to fail.
    path = tmp_path / "expected.json"
    expected = json.loads(path.read_text(encoding="utf-8"))
    first, second = expected["adapters"]
    expected["expected"][first] = expected["expected"][second]
    path.write_text(json.dumps(expected), encoding="utf-8")
    done = run(tmp_path, "worker")
    assert done.returncode != 0
    assert "another adapter or none answers" in done.stderr
