"""The manifest as JSON: written whole, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worker.contract.codec import decode, encode
from worker.contract.digest import write_atomically
from worker.contract.errors import AdapterRefused, TaxonomyError
from worker.contract.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from worker.contract.manifest_digest import manifest_digest


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json``, atomically; call it last, when every file it names is complete."""
    path = directory / MANIFEST_NAME
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode("utf-8") + b"\n")
    return path


def read_manifest(directory: Path) -> Manifest:
    """Read a directory's manifest. Raises AdapterRefused with the file and what is wrong in it."""
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise AdapterRefused(directory, "there is no such adapter directory")
    if not path.is_file():
        raise AdapterRefused(
            path, "missing: this is no published adapter (the manifest is written last)"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(path, f"not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise AdapterRefused(path, "must hold a JSON object")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or type(version) is not int:  # True and 1.0 equal 1
        raise AdapterRefused(
            path,
            f"schema_version is {version!r} and this version reads {SCHEMA_VERSION}: publish the "
            "adapter again with a trainer of this version, or run the version that made it",
        )
    try:
        return _from_json(data)
    except (ValueError, TaxonomyError) as error:
        raise AdapterRefused(path, str(error)) from error


def _from_json(data: dict[str, Any]) -> Manifest:
    """Build a manifest that has the digest of ``data``. Raises ValueError, TaxonomyError."""
    manifest = decode(Manifest, data, "manifest")
    assert isinstance(manifest, Manifest)
    object.__setattr__(manifest, "digest_as_read", manifest_digest(data))  # the class is frozen
    return manifest
