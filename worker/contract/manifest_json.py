"""The manifest as JSON: written whole, read strictly."""

from __future__ import annotations

import json
from pathlib import Path

from worker.contract.codec import decode, encode
from worker.contract.digest import write_atomically
from worker.contract.errors import AdapterRefused, TaxonomyError
from worker.contract.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest


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
    if version != SCHEMA_VERSION:
        raise AdapterRefused(
            path,
            f"schema_version is {version!r} and this worker reads {SCHEMA_VERSION}: "
            "publish the adapter again with a matching trainer, or run a matching worker",
        )
    try:
        manifest = decode(Manifest, data, "manifest")
        assert isinstance(manifest, Manifest)
        _ = manifest.digest  # what has none (a NaN among the metrics) is refused here
    except (ValueError, TaxonomyError) as error:
        raise AdapterRefused(path, str(error)) from error
    return manifest
