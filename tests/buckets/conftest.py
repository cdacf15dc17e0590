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

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        (folder / BUCKET).mkdir(parents=True)
        with socket.socket() as free:
            free.bind((host, 0))
            self.address = f"{host}:{free.getsockname()[1]}"
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

    @property
    def login(self) -> dict[str, str]:
        """The variables of a client."""
        return {
            "AWS_ACCESS_KEY_ID": "clerk",
            "AWS_SECRET_ACCESS_KEY": "of-the-test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{self.address}",
        }

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
    for name, value in server.login.items():
        monkeypatch.setenv(name, value)
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
