"""The manifest as JSON: written whole, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worker.contract import manifest_v1, manifest_v2
from worker.contract.codec import decode, encode
from worker.contract.digest import write_atomically
from worker.contract.errors import AdapterRefused, TaxonomyError
from worker.contract.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from worker.contract.manifest_digest import manifest_digest

_READABLE = (manifest_v1.SCHEMA_VERSION, manifest_v2.SCHEMA_VERSION, SCHEMA_VERSION)


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json``, atomically; call it last, when every file it names is complete.

    A manifest that was read from a file of an earlier schema is written in the present one, and so
    has another digest there: copy the file where the adapter must stay what it is.
    """
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
    if version not in _READABLE:
        raise AdapterRefused(
            path,
            f"schema_version is {version!r} and this worker reads "
            f"{', '.join(map(str, _READABLE[:-1]))} and {_READABLE[-1]}: publish the adapter again "
            "with a matching trainer, or run a matching worker",
        )
    if not isinstance(version, int) or isinstance(version, bool):
        raise AdapterRefused(
            path, f"manifest.schema_version must be int, not {type(version).__name__}"
        )
    try:
        return _from_json(data)
    except (ValueError, TaxonomyError) as error:
        raise AdapterRefused(path, str(error)) from error


def _from_json(data: dict[str, Any]) -> Manifest:
    """Build a manifest that has the digest of ``data``. Raises ValueError, TaxonomyError."""
    upgraded = manifest_v1.upgrade(data) if manifest_v1.is_version_1(data) else data
    if upgraded["schema_version"] == manifest_v2.SCHEMA_VERSION:
        upgraded = manifest_v2.upgrade(upgraded)
    manifest = decode(Manifest, upgraded, "manifest")
    assert isinstance(manifest, Manifest)
    object.__setattr__(manifest, "digest_as_read", manifest_digest(data))  # the class is frozen
    return manifest
