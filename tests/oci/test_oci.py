"""An adapter in an OCI registry (crane's, as `make test-oci` builds it)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trainer.cli.main import app
from trainer.errors import BadInput
from trainer.store.oci import push
from worker.contract import load_adapter, read_manifest
from worker.demo.models import adapter_dir

CRANE = str(Path(__file__).parents[2] / ".cache" / "release" / "crane")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not Path(CRANE).exists():
        why = "no crane: make test-oci builds it (needs Go)"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    disk = str(tmp_path_factory.mktemp("registry"))
    server = subprocess.Popen([CRANE, "registry", "serve", "--address", address, "--disk", disk])
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://{address}/v2/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    server.terminate()
    server.wait(10)


def crane(*arguments: str) -> bytes:
    return subprocess.run([CRANE, *arguments], check=True, capture_output=True).stdout


def test_publish_prints_references_that_hold_the_adapter(registry: str, tmp_path: Path) -> None:
    """Both by digest, the same whenever it is pushed."""
    run = tmp_path / "run" / "adapter"
    shutil.copytree(adapter_dir(), run)
    store, name = str(tmp_path / "store"), f"{registry}/clerk/adapters"
    given = ["publish", str(run), "--store", store, "--oci", name, "--json"]
    given += ["--force", "--reason", "of the test"]
    printed = [json.loads(CliRunner().invoke(app, given).stdout) for _ in range(2)]
    assert printed[0]["oci"] == printed[1]["oci"]
    image, artifact = printed[0]["oci"]["image"], printed[0]["oci"]["artifact"]
    digest = read_manifest(run).digest

    # As a node mounts it: the image's one layer.
    archive = tmp_path / "image.tar"
    archive.write_bytes(crane("export", "--insecure", image, "-"))
    with tarfile.open(archive) as layer:
        layer.extractall(tmp_path / "mounted", filter="data")
    assert load_adapter(tmp_path / "mounted").digest == digest

    # As ModelPack's readers do: a file for each layer, by its name.
    manifest: dict[str, Any] = json.loads(crane("manifest", "--insecure", artifact))
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for blob in manifest["layers"]:
        file = pulled / blob["annotations"]["org.cncf.model.filepath"]
        file.write_bytes(crane("blob", "--insecure", f"{name}@{blob['digest']}"))
    assert load_adapter(pulled).digest == digest
    config = json.loads(crane("blob", "--insecure", f"{name}@{manifest['config']['digest']}"))
    assert config["modelfs"]["diffIds"] == [blob["digest"] for blob in manifest["layers"]]


def test_what_cannot_be_pushed_leaves_the_store_as_it_is(registry: str, tmp_path: Path) -> None:
    manifest = read_manifest(adapter_dir())
    for name, said in (
        ("adapters", "give REGISTRY/NAME"),
        (f"{registry}/clerk:latest", "without a tag or digest"),
        ("127.0.0.1:1/clerk", "Connection refused.*: nothing was published"),
    ):
        with pytest.raises(BadInput, match=f"(?s)--oci {name}: .*{said}"):
            push(adapter_dir(), manifest, name)
