"""``clerk-worker demo`` as a newcomer runs it, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(600)
COUNT = 80


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the demo with its own folder for temporary files."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return list(psutil.Process(process.pid).children(recursive=True))


def assert_nothing_left(children: list[psutil.Process], tmp_path: Path) -> None:
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert list(tmp_path.glob("filing-clerk*")) == []


@pytest.mark.usefixtures("base_model_dir")
@pytest.mark.parametrize(
    ("model", "programs", "answered"),
    [
        ((), 3, None),  # worker, engine, broker
        (("--model", "encoder"), 2, None),
        pytest.param(
            ("--model", "cascade"),
            3,
            r"answered\s+\d+% by shop-support-encoder, \d+% by shop-support\n",
            marks=pytest.mark.long,
        ),
    ],
    ids=["adapter", "encoder", "cascade"],
)
def test_the_demo_shows_labels_and_a_summary_and_leaves_nothing(
    tmp_path: Path, model: tuple[str, ...], programs: int, answered: str | None
) -> None:
    """With each of the models that ship: every message has a line, the summary adds up, exit
    code 0."""
    process = start(tmp_path, "-n", str(COUNT), *model)
    children: list[psutil.Process] = []
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "publishing to" in line:
            children = processes_below(process)
    process.stdout.close()
    assert process.wait(60) == 0, "".join(lines)
    output = "".join(lines)
    assert len(children) >= programs
    assert_nothing_left(children, tmp_path)
    landed = [line for line in lines if re.match(r"\s+[✓✗?] \w+", line)]
    assert len(landed) == COUNT
    assert f"{COUNT} for {COUNT} messages" in output
    assert re.search(r"outside the label set\s+0\n", output)
    for word in ("accuracy", "messages/s", "p50", "p99", "What to try next"):
        assert word in output
    assert answered is None or re.search(answered, output)
    assert "Traceback" not in output
    assert "rdkafka" not in output


@pytest.mark.usefixtures("base_model_dir")
def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    """Interrupted while the engine starts."""
    process = start(tmp_path)
    until = time.monotonic() + 120
    while len(processes_below(process)) < 4 and time.monotonic() < until:
        time.sleep(0.2)
    children = processes_below(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "nothing is left running" in output
    assert "Traceback" not in output
    assert_nothing_left(children, tmp_path)


@pytest.mark.long  # an engine for two messages
@pytest.mark.usefixtures("base_model_dir")
def test_classify_labels_a_file_with_the_demo_model(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    texts = ["my refund has not arrived yet", "what time do you open on sunday"]
    file.write_text("".join(json.dumps({"message": text}) + "\n" for text in texts))
    done = subprocess.run(
        [sys.executable, "-m", "worker", "classify", "--demo", "-i", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [output["label"] for output in found] == ["refund", "stores_and_business"]
