"""A base and an adapter on disk, as a trainer leaves them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import ENCODERS, toy_manifest
from worker.contract import (
    AdapterRefused,
    Encoders,
    FileDigest,
    Manifest,
    describe_base,
    verify_adapter,
    write_manifest,
)
from worker.contract.digest import sha256_file

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Published:
    """A base and an adapter on disk, as a trainer leaves them."""

    base: Path
    adapter: Path
    manifest: Manifest

    def verify(self, encoders: Encoders = ENCODERS, *, weights: bool = True) -> Manifest:
        return verify_adapter(self.adapter, self.base, encoders, weights=weights)

    def refused(self, path: Path, problem: str, encoders: Encoders = ENCODERS) -> None:
        with pytest.raises(AdapterRefused, match=problem) as caught:
            self.verify(encoders)
        assert caught.value.path == path
        assert str(path) in str(caught.value)

    def rewrite(self, **changes: object) -> None:
        write_manifest(self.adapter, replace(self.manifest, **changes))  # type: ignore[arg-type]


def publish(directory: Path) -> Published:
    """Write a toy base and an adapter trained on it into ``directory``."""
    base, adapter = directory / "base", directory / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "config.json").write_text('{"model_type": "toy", "transformers_version": "5.0"}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"base weights")
    (adapter / WEIGHTS).write_bytes(b"lora weights")
    (adapter / "adapter_config.json").write_text("{}")
    files = {
        path.name: FileDigest(sha256_file(path), path.stat().st_size) for path in adapter.iterdir()
    }
    manifest = toy_manifest(base=describe_base(base, "toy-base", "main"), files=files)
    write_manifest(adapter, manifest)
    return Published(base, adapter, manifest)
