"""The base model as files: describing it for a manifest, and refusing any other base."""

from __future__ import annotations

import json
from pathlib import Path

from worker.contract.digest import sha256_file, sha256_json
from worker.contract.errors import AdapterRefused
from worker.contract.manifest import BaseModel, FileDigest

_VOLATILE = {"transformers_version", "_name_or_path", "_model_name_or_path"}


def config_digest(config_path: Path) -> str:
    """Return the SHA-256 of a ``config.json``, leaving out the keys that only say who wrote it.

    Raises AdapterRefused when the file cannot be read.
    """
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        return sha256_json({key: value for key, value in config.items() if key not in _VOLATILE})
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterRefused(config_path, f"cannot read the base's config: {error}") from error


def describe_base(directory: Path, name: str, revision: str) -> BaseModel:
    """Describe a base model's directory by the digests of its files.

    Reads every weight file: about a second per gigabyte. Raises AdapterRefused.
    """
    weights = {
        path.name: FileDigest(sha256_file(path), path.stat().st_size)
        for path in sorted(directory.glob("*.safetensors"))
    }
    if not weights:
        raise AdapterRefused(directory, "holds no *.safetensors: not a base this project can use")
    tokenizer = directory / "tokenizer.json"
    if not tokenizer.is_file():
        raise AdapterRefused(tokenizer, "missing: a base needs a fast tokenizer")
    return BaseModel(
        name=name,
        revision=revision,
        config_sha256=config_digest(directory / "config.json"),
        tokenizer_sha256=sha256_file(tokenizer),
        weights=weights,
    )


def verify_base(directory: Path, expected: BaseModel, *, weights: bool = True) -> None:
    """Refuse a base that is not the one the adapter was trained on.

    ``weights=False`` compares only the names and sizes of the weight files, without reading them.
    Raises AdapterRefused, naming the file and both digests.
    """
    hint = f"the adapter was trained on {expected.name} ({expected.revision})"
    if not directory.is_dir():
        raise AdapterRefused(directory, f"there is no such base model directory; {hint}")
    found = config_digest(directory / "config.json")
    if found != expected.config_sha256:
        raise AdapterRefused(
            directory / "config.json", _differs(found, expected.config_sha256, hint)
        )
    verify_file(directory / "tokenizer.json", expected.tokenizer_sha256, None, hint)
    for name, wanted in expected.weights.items():
        verify_file(directory / name, wanted.sha256 if weights else None, wanted.bytes, hint)
    extra = sorted({path.name for path in directory.glob("*.safetensors")} - set(expected.weights))
    if extra:
        raise AdapterRefused(
            directory / extra[0], f"a weight file that the adapter's base does not have; {hint}"
        )


def verify_file(path: Path, sha256: str | None, size: int | None, hint: str) -> None:
    """Raise AdapterRefused unless ``path`` has that size and digest (None: not compared)."""
    try:
        if size is not None and path.stat().st_size != size:
            raise AdapterRefused(
                path, f"is {path.stat().st_size} bytes and should be {size}; {hint}"
            )
        if sha256 is None:
            return
        found = sha256_file(path)
    except FileNotFoundError as error:
        raise AdapterRefused(path, f"missing; {hint}") from error
    except OSError as error:
        raise AdapterRefused(path, f"cannot be read ({error.strerror}); {hint}") from error
    if found != sha256:
        raise AdapterRefused(path, _differs(found, sha256, hint))


def _differs(found: str, wanted: str, hint: str) -> str:
    return f"sha256 is {found[:16]}… and should be {wanted[:16]}…; {hint}"
