"""A base and an adapter on disk, as a trainer writes them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import ENCODERS, toy_encoder_manifest, toy_head, toy_manifest
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
        base = self.base if self.base.exists() else None
        return verify_adapter(self.adapter, base, encoders, weights=weights)

    def refused(self, path: Path, problem: str, encoders: Encoders = ENCODERS) -> None:
        with pytest.raises(AdapterRefused, match=problem) as caught:
            self.verify(encoders)
        assert caught.value.path == path
        assert str(path) in str(caught.value)

    def rewrite(self, **changes: object) -> None:
        write_manifest(self.adapter, replace(self.manifest, **changes))  # type: ignore[arg-type]


def publish(directory: Path) -> Published:
    """Write a toy base and an adapter trained on it into ``directory``."""
    base, adapter = _write_base(directory), directory / "adapter"
    adapter.mkdir()
    (adapter / WEIGHTS).write_bytes(b"lora weights")
    (adapter / "adapter_config.json").write_text("{}")
    manifest = toy_manifest(base=describe_base(base, "toy-base", "main"), files=digests(adapter))
    write_manifest(adapter, manifest)
    return Published(base, adapter, manifest)


def publish_encoder(directory: Path, **changes: Any) -> Published:
    """Write a toy base and an encoder trained from it; its files contain no model."""
    base, adapter = _write_base(directory), directory / "encoder"
    adapter.mkdir()
    shutil.copy(base / "tokenizer.json", adapter)
    for name in changes.get("head", toy_head()).files:
        (adapter / name).write_bytes(name.encode())
    described = describe_base(base, "toy-base", "main")
    manifest = toy_encoder_manifest(base=described, files=digests(adapter), **changes)
    write_manifest(adapter, manifest)
    return Published(base, adapter, manifest)


def digests(directory: Path) -> dict[str, FileDigest]:
    """Describe every file in a directory as a manifest does."""
    return {
        path.name: FileDigest(sha256_file(path), path.stat().st_size)
        for path in directory.iterdir()
    }


def _write_base(directory: Path) -> Path:
    base = directory / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "toy", "transformers_version": "5.0"}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"base weights")
    return base
