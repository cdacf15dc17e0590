"""An adapter store: immutable adapters named by their digests, and one pointer to the current one.

    STORE/<digest>/                    an adapter as its manifest says, never changed
    STORE/<digest>.predictions.jsonl   what it answered on the hold-out, without any text
    STORE/<digest>.json                its record: evaluation, gate, who, when and why
    STORE/history.jsonl                every move of the pointer, appended before the move
    STORE/current.json                 the pointer, replaced in one step and last of all

The trainer writes it and the worker reads it. A reader needs the pointer and the directory alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.contract.codec import decode, encode
from worker.contract.digest import write_atomically
from worker.contract.errors import AdapterRefused
from worker.contract.manifest import MANIFEST_NAME, Manifest
from worker.contract.manifest_json import read_manifest
from worker.contract.verify import load_adapter

CURRENT_NAME = "current.json"
HISTORY_NAME = "history.jsonl"

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which adapter is current, since when (UTC, ISO 8601), set by whom and why.

    ``previous`` is the adapter that a rollback goes back to, None where there is none.
    """

    digest: str
    name: str
    since: str
    previous: str | None
    by: str
    reason: str | None
    schema: Literal["current/1"] = "current/1"

    def __post_init__(self) -> None:
        # A digest becomes a path: nothing but a digest may.
        for one in (self.digest, self.previous):
            if one is not None and not is_digest(one):
                raise ValueError(f"{one!r} is not a digest of 64 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class Found:
    """An adapter's directory, and the pointer that led there (None: it was named itself)."""

    directory: Path
    pointer: Pointer | None


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is an adapter's digest, whole and in lower case."""
    return _DIGEST.fullmatch(text) is not None


def find_adapter(path: Path) -> Found:
    """Return ``path`` when it is an adapter, or the current adapter when it is a store.

    Only the manifest is read, and must have the digest that the pointer names: the files are
    ``load_adapter``'s to verify. What is neither is returned as it is, for ``load_adapter`` to
    refuse. Raises AdapterRefused when a store has no current adapter or its pointer is bad.
    """
    if (path / MANIFEST_NAME).exists():
        return Found(path, None)
    pointer = read_pointer(path)
    if pointer is None:
        if (path / HISTORY_NAME).exists():
            raise AdapterRefused(
                path / CURRENT_NAME, "missing: nothing in this store was published to the end"
            )
        return Found(path, None)
    directory = path / pointer.digest
    _check_name(directory, read_manifest(directory))
    return Found(directory, pointer)


def load_stored(store: Path, digest: str) -> Manifest:
    """Verify a stored adapter, every file of it and its name, and return its manifest.

    Raises AdapterRefused.
    """
    manifest = load_adapter(store / digest)
    _check_name(store / digest, manifest)
    return manifest


def read_pointer(store: Path) -> Pointer | None:
    """Return a store's pointer, None where there is none. Raises AdapterRefused."""
    path = store / CURRENT_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        pointer = decode(Pointer, data, "the pointer")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(path, f"not a pointer to an adapter: {error}") from error
    assert isinstance(pointer, Pointer)
    return pointer


def write_pointer(store: Path, pointer: Pointer) -> None:
    """Make an adapter current, in one step: a reader sees the old pointer or the new one.

    Raises OSError, and then the old one stands, unless the new one's name is there and was only
    not brought to the disk.
    """
    text = json.dumps(encode(pointer), indent=1, ensure_ascii=False)
    write_atomically(store / CURRENT_NAME, text.encode("utf-8") + b"\n")


def _check_name(directory: Path, manifest: Manifest) -> None:
    if manifest.digest != directory.name:
        raise AdapterRefused(
            directory / MANIFEST_NAME,
            f"has the digest {manifest.digest[:12]}… and is stored under another: it was altered; "
            "publish the adapter again",
        )
