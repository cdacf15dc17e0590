"""A store in Azure's Blob Storage, by azurite, as `make test-azure` installs it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets.test_buckets import (
    test_a_store_is_published_to_moved_and_rolled_back as moves_through_everything,
)
from tests.buckets.test_buckets import (
    test_of_two_writers_exactly_one_wins as one_of_two_writers_wins,
)
from tests.buckets.test_buckets import (
    test_workers_that_share_a_folder_fetch_once as workers_fetch_once,
)

AZURITE = (
    Path(__file__).parents[2] / ".cache" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
)
CONTAINER = "adapters"
# The account that azurite is documented to have.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PORT = 10000  # the client's emulator setting knows no other


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if not AZURITE.exists():
        pytest.skip("no azurite: make test-azure installs it (needs Node)")
    folder = tmp_path / "azurite"
    command = [str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(PORT), "--silent"]
    command += ["--skipApiVersionCheck", "--location", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.1)
        _create_container()
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        monkeypatch.setenv("CLERK_CACHE", str(tmp_path / "cache"))
        yield f"az://{CONTAINER}/store"
    finally:
        server.terminate()
        server.wait(10)


def _create_container() -> None:
    """Create it with the account's key, which the store's client cannot."""
    now = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": now, "x-ms-version": "2023-11-03"}
    canonical = "".join(f"{name}:{value}\n" for name, value in headers.items())
    resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + canonical + resource
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    target = f"http://127.0.0.1:{PORT}/{ACCOUNT}/{CONTAINER}?restype=container"
    request = urllib.request.Request(target, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201


def test_a_store_moves_through_everything(url: str, tmp_path: Path) -> None:
    moves_through_everything(url, tmp_path)


def test_of_two_writers_exactly_one_wins_a_thousand_times(url: str) -> None:
    one_of_two_writers_wins(url)


def test_workers_that_share_a_folder_fetch_an_adapter_once(url: str, tmp_path: Path) -> None:
    workers_fetch_once(url, tmp_path)
