"""Bases by their name: fetched when asked for, from a server that speaks the hub's calls, and then
found without it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.processes import environment, serving
from tests.support.tiny_encoder import make_tiny_encoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "maker/tiny-encoder"

pytestmark = pytest.mark.slow


class Hub(BaseHTTPRequestHandler):
    """One model: its description, and its files at its commit. ``asked`` are the paths."""

    folder: Path
    asked: list[str]

    def _answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        headers = {"X-Repo-Commit": COMMIT}
        files = {path.name: path for path in self.folder.iterdir()}
        wanted = self.path.partition("?")[0].removeprefix(f"/{NAME}/resolve/{COMMIT}/")
        if self.path.startswith(f"/api/models/{NAME}/tree/"):
            listed = ((name, path.stat().st_size) for name, path in files.items())
            tree = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in listed]
            data = json.dumps(tree).encode()
        elif self.path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in files]
            found = {"id": NAME, "sha": COMMIT, "siblings": siblings, "private": False}
            data = json.dumps(found | {"tags": [], "downloads": 0}).encode()
        elif wanted in files:
            data = files[wanted].read_bytes()
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        else:
            headers["X-Error-Code"] = "RepoNotFound"
            data = b""
        self.send_response(404 if "X-Error-Code" in headers else 200)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    folder = make_tiny_encoder(tmp_path / "published", ["refund my card"])
    (folder / "pickled.bin").write_bytes(b"code")
    Hub.folder, Hub.asked = folder, []
    with serving(Hub) as address:
        yield address


def run(home: Path, address: str, *words: object) -> subprocess.CompletedProcess[str]:
    env = environment(HF_HOME=str(home), HF_ENDPOINT=address)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        env.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, words)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_base_is_fetched_once_when_asked_for_and_then_found_by_name(
    hub: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shown = run(home, hub, "check", tmp_path, "--base", NAME)
    assert shown.returncode == 2
    assert f"clerk-trainer base get {NAME} fetches it" in shown.stderr
    assert Hub.asked == []
    done = run(home, hub, "base", "get", NAME, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["revision"] == COMMIT
    assert "model.safetensors" in found["files"]
    assert "pickled.bin" not in found["files"]
    assert (Path(found["folder"]) / "tokenizer.json").is_file()
    shutil.rmtree(Hub.folder)
    asked = len(Hub.asked)
    for name in (NAME, f"{NAME}@{COMMIT}"):
        later = run(home, "http://127.0.0.1:9", "check", tmp_path, "--base", name)
        assert "not a finished dataset" in later.stderr, later.stderr
    assert len(Hub.asked) == asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("maker/none", "maker/none: cannot be fetched"),
        ("tiny", "OWNER/NAME or OWNER/NAME@REVISION"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_a_sentence(
    hub: str, tmp_path: Path, name: str, said: str
) -> None:
    done = run(tmp_path / "home", hub, "base", "get", name)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
    away = run(tmp_path / "home", "http://127.0.0.1:9", "base", "get", NAME)
    assert away.returncode == 2, away.stderr
    assert "cannot be fetched" in away.stderr
