"""``classify --out --ray``: two actors on a local cluster, one of which is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.tiny_onnx import write_tiny_encoder

ROWS, PART_ROWS = 4000, 100


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets are below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.timeout(240)
def test_every_row_once_though_an_actor_is_killed(tmp_path: Path, short: Path) -> None:
    """As without Ray; and Ray's files hold no text."""
    adapter = write_tiny_encoder(tmp_path / "adapter")
    archive = tmp_path / "archive.jsonl"
    lines = (json.dumps({"id": f"m{n}", "message": f"Quokka {n} " * 40}) for n in range(ROWS))
    archive.write_text("\n".join(lines))
    code = (
        f"from worker.offline import backfill; backfill.PART_ROWS = {PART_ROWS}\n"
        "from worker.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "classify", "-s", f"model.adapter={adapter}"]
    command += ["-i", str(archive), "--out"]
    subprocess.run([*command, str(tmp_path / "alone")], check=True, stderr=subprocess.DEVNULL)
    environment = {**os.environ, "RAY_TMPDIR": str(short)}
    with (tmp_path / "log").open("wb") as log:
        program = subprocess.Popen(
            [*command, str(tmp_path / "ray-out"), "--ray", "2"], stderr=log, env=environment
        )
    killed = False
    while program.poll() is None:
        if not killed and len(list((tmp_path / "ray-out").glob("part-*"))) >= 3:
            actors = [
                child
                for child in psutil.Process(program.pid).children(recursive=True)
                if "MapWorker" in " ".join(child.cmdline())
            ]
            actors[0].kill()
            killed = True
        time.sleep(0.05)
    assert (program.returncode, killed) == (0, True), (tmp_path / "log").read_text()
    assert _records(tmp_path / "ray-out") == _records(tmp_path / "alone")
    kept = [path for path in short.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"Quokka" in path.read_bytes()]


def _records(out: Path) -> list[dict[str, Any]]:
    lines = b"".join(path.read_bytes() for path in sorted(out.glob("part-*"))).splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in _TIMES}
        for line in lines
    ]


_TIMES = {"labelled_at", "latency"}
