"""The scripts of `helm test`, against real HTTP servers here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.chart.render import CHART, find, render_minimal
from tests.support.processes import serving

SCRIPT = (CHART / "files" / "check_workers.py").read_text(encoding="utf-8")


@contextmanager
def worker(pages: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """A server with these pages, as host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        yield url.removeprefix("http://")


def check(*targets: str, least: int = 1) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(least), *targets],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


INFO = (200, {"adapter": "support"})
READY = {"/readyz": (200, {"ok": True, "why": []}), "/info": INFO}


def test_all_workers_have_to_be_ready() -> None:
    """Their adapters are printed, or why one is not ready."""
    warming = {"/readyz": (503, {"ok": False, "why": ["the model is not warm"]}), "/info": INFO}
    with worker(READY) as first, worker(READY) as second, worker(warming) as third:
        code, output = check(first, second)
        assert code == 0
        assert '{"adapter": "support"}' in output
        assert "2 of 2 workers are ready" in output
        assert check(first, least=0)[0] == 0
        code, output = check(first, third, least=0)
    assert code == 1
    assert "the model is not warm" in output
    assert "1 of 2 workers are ready" in output


def test_another_server_is_not_a_worker() -> None:
    """A body that is not JSON, a closed port, an unknown name, no worker at all: each exits 1."""
    with worker({"/readyz": (200, b"<html>"), "/info": INFO}) as stranger:
        assert check(stranger)[0] == 1
    assert "no answer" in check(stranger)[1]  # it is closed now
    assert check("workers.invalid:8080")[0] == 1
    assert check()[0] == 1


def test_a_release_at_zero_is_healthy_if_it_may_be_there() -> None:
    assert check("workers.invalid:8080", least=0)[0] == 0
    for values, least in (
        ({}, "1"),
        ({"replicaCount": 3}, "1"),
        ({"replicaCount": 0}, "0"),
        ({"autoscaling": {"kind": "keda", "minReplicas": 0}}, "0"),
        ({"autoscaling": {"kind": "keda", "minReplicas": 2}}, "1"),
    ):
        pod = find(render_minimal(values), "Pod")
        assert pod["spec"]["containers"][0]["args"][1] == least


# The script that fills the volumes: files appear whole or not at all, however often it is killed.
DOWNLOAD = CHART / "files" / "download.py"
WAIT = CHART / "files" / "wait_for_adapter.py"
SHARD = bytes(range(256)) * 4096 * 4  # 4 MiB


@dataclass
class Store:
    """A model store on loopback. ``cut`` requests break off in the middle; with ``stall`` they hang
    there."""

    url: str = ""
    cut: int = 0
    stall: bool = False
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(SHARD)))
            self.end_headers()
            if found.stall or found.cut > 0:
                found.cut -= 1
                self.wfile.write(SHARD[: len(SHARD) // 2])
                self.wfile.flush()
                while found.stall:
                    time.sleep(0.05)
                return
            self.wfile.write(SHARD)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as found.url:
        yield found
        found.stall = False


def begin(path: Path, url: str, digest: str = sha256(SHARD).hexdigest()) -> subprocess.Popen[str]:
    """Start it as the init container does: from its text."""
    text = DOWNLOAD.read_text(encoding="utf-8").replace(
        "_PAUSE_S, _TIMEOUT_S = 5, 5.0", "_PAUSE_S, _TIMEOUT_S = 5, 0.05"
    )
    return subprocess.Popen(
        [sys.executable, "-c", text, f"{digest} {path} {url}"],
        env={**os.environ, "DOWNLOAD_AUTHORIZATION": "Bearer of-the-store"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_download_leaves_no_partial_file(store: Store, tmp_path: Path) -> None:
    """The next one downloads it again; the one after that finds it complete."""
    path = tmp_path / "base" / "model.safetensors"
    store.stall = True
    killed = begin(path, store.url)
    until = time.monotonic() + 60
    while not any(part.stat().st_size for part in tmp_path.glob("base/.*.part")):
        assert time.monotonic() < until
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert not path.exists()
    store.stall = False
    again = begin(path, store.url)
    output, _ = again.communicate(timeout=60)
    assert (again.returncode, path.read_bytes() == SHARD) == (0, True), output
    asked = len(store.asked)
    once_more = begin(path, store.url)
    assert once_more.communicate(timeout=60)[0] == f"{path} exists\n"
    assert len(store.asked) == asked
    assert store.asked[0] == "Bearer of-the-store"


def test_a_file_with_another_digest_is_downloaded_again(store: Store, tmp_path: Path) -> None:
    """Also if the file was changed after it was checked."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"the model of last month")
    for expected in ("has another digest", "exists", "has another digest"):
        child = begin(path, store.url)
        output = child.communicate(timeout=60)[0]
        assert child.returncode == 0
        assert expected in output
        assert path.read_bytes() == SHARD
        if expected == "exists":
            path.write_bytes(SHARD[:-1] + b"x")


def test_a_truncated_download_is_retried(store: Store, tmp_path: Path) -> None:
    store.cut = 2
    done = begin(tmp_path / "shard", store.url)
    output, _ = done.communicate(timeout=60)
    assert done.returncode == 0, output
    assert (tmp_path / "shard").read_bytes() == SHARD
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


def test_a_wrong_digest_is_refused(store: Store, tmp_path: Path) -> None:
    done = begin(tmp_path / "shard", store.url, "0" * 64)
    output, _ = done.communicate(timeout=60)
    assert done.returncode == 1
    assert f"expected the digest {'0' * 64}, got {sha256(SHARD).hexdigest()}" in output
    assert list(tmp_path.iterdir()) == []


def test_workers_wait_for_the_first_adapter(tmp_path: Path) -> None:
    """A store's pointer and an adapter's manifest both end the wait."""
    for name in ("current.json", "manifest.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        text = WAIT.read_text(encoding="utf-8")
        waiting = subprocess.Popen(
            [sys.executable, "-c", text, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert waiting.stdout is not None
        assert "has no adapter yet" in waiting.stdout.readline()
        assert waiting.poll() is None
        (folder / name).write_text("{}")
        assert waiting.communicate(timeout=60)[0] == f"{folder} has an adapter\n"
