"""An S3 server on this machine: versitygw (Go), as `make test-buckets` builds it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATEWAY = shutil.which("versitygw") or str(ROOT / ".cache" / "tools" / "versitygw")
BUCKET = "adapters"


class Gateway:
    """A server that can go away and come back at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / BUCKET).mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        login = {"ROOT_ACCESS_KEY": "clerk", "ROOT_SECRET_KEY": "of-the-test"}
        self._child = subprocess.Popen(
            [GATEWAY, "--port", self.address, "posix", str(self.folder)],
            env={**os.environ, **login},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{self.address}/", timeout=1).close()
            except urllib.error.HTTPError:
                return  # it answers: 403 without a signature
            except OSError:
                time.sleep(0.1)
        raise AssertionError("versitygw does not answer")

    def stop(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGKILL)
        self._child.wait(10)


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    if not Path(GATEWAY).exists():
        why = "no versitygw: make test-buckets builds it (needs Go)"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    server = Gateway(tmp_path / "s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "clerk")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.address}")
    monkeypatch.setenv("CLERK_CACHE", str(tmp_path / "cache"))
    yield server
    server.stop()


@pytest.fixture
def url(gateway: Gateway) -> str:
    return f"s3://{BUCKET}/store"


@pytest.fixture
def objects(gateway: Gateway) -> Path:
    """The store's objects as the server keeps them: files."""
    return gateway.folder / BUCKET / "store"


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], float], None]:
    def wait(reached: Callable[[], object], within_s: float) -> None:
        until = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < until
            time.sleep(0.1)

    return wait
