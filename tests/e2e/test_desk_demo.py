"""``clerk-desk demo``: uncertain labels are decided on the desk's own pages, and arrive."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import psutil
import pytest

from tests.support.desk_browser import field
from tests.support.topics import read_corrections
from worker.demo.plan import CORRECTIONS

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
COUNT = 40


class Shown:
    """A running demo, its output so far, and its child processes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.below: list[psutil.Process] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until a line matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(pattern, line):
                self.below = psutil.Process(self.process.pid).children(recursive=True)
                return found
        raise AssertionError(f"it ended before it said {pattern}: " + "".join(self.lines))

    def interrupt(self) -> str:
        """Press Ctrl-C; return the whole output. Nothing is left running."""
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, said
        _, alive = psutil.wait_procs(self.below, timeout=10)
        assert not alive
        return "".join(self.lines) + said


@contextmanager
def demo(folder: Path, temporary: Path) -> Iterator[Shown]:
    """Run it as on a machine with nothing of ours on its PATH."""
    command = [sys.executable, "-m", "desk", "demo", "-n", str(COUNT), "--folder", str(folder)]
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "XDG_CACHE_HOME"}}
    process = subprocess.Popen(
        command,
        env={**kept, "PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Shown(process)
    finally:
        process.kill()
        process.wait()


def decide(url: str, label: str) -> None:
    """Label the message on screen by the page's form, without a script."""
    browser = build_opener(HTTPCookieProcessor())
    page = browser.open(f"{url}/review", timeout=30).read().decode("utf-8")
    if 'name="action" value="next"' in page:  # what the script sends
        begin = urlencode({"csrf": field(page, "csrf"), "action": "next"}).encode("ascii")
        page = browser.open(f"{url}/review", begin, timeout=30).read().decode("utf-8")
    sent = {name: field(page, name) for name in ("csrf", "item", "request")}
    form = urlencode({**sent, "action": f"label:{label}"}).encode("ascii")
    with browser.open(f"{url}/review", form, timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.usefixtures("base_model_dir")
def test_a_decision_arrives_and_a_folder_is_reused(tmp_path: Path) -> None:
    """A third of the messages waits, and a decision arrives as a correction in the terminal and
    on its topic. Ctrl-C leaves nothing running. The same folder again has the remaining
    messages."""
    folder, temporary = tmp_path / "kept", tmp_path / "temporary"
    temporary.mkdir()
    with demo(folder, temporary) as shown:
        servers = shown.wait_for(r"Apache Kafka is ready at (\S+)")[1]
        waiting, url = shown.wait_for(r"^(\d+) messages wait for review: (http://\S+)$").groups()
        in_review = re.search(r"(\d+) review", "".join(shown.lines))
        assert in_review is not None
        assert 0 < int(in_review[1]) <= int(waiting) < COUNT
        decide(url, "refund")
        said = shown.wait_for(r"correction 1: (\S+) \((confirmed|was \S+)\)")
        (correction,) = read_corrections(servers, CORRECTIONS)
        assert said[1] == correction.label == "refund"
        assert correction.agrees is (said[2] == "confirmed")
        output = shown.interrupt()
    assert f"nothing is left running; its files are in {folder}" in " ".join(output.split())
    assert "Traceback" not in output
    assert list(temporary.glob("filing-clerk*")) == []
    with demo(folder, temporary) as again:
        again.wait_for(f"has {COUNT} messages from an earlier run; publishing no more")
        left = again.wait_for(r"^(\d+) messages wait for review")[1]
        assert int(left) == int(waiting) - 1
        again.interrupt()
