"""An adapter store: immutable adapters named by their digests, and a pointer to the current one.

    STORE/<digest>/                    an adapter, never changed
    STORE/<digest>.predictions.jsonl   what it answered on the hold-out, without any text
    STORE/<digest>.probes.json         messages to try it on, if any: private (see probes)
    STORE/<digest>.json                its record: evaluation, gate, who, when and why
    STORE/<digest>.README.md           its model card, for people
    STORE/history.jsonl                every move of the pointer, appended before the move
    STORE/current.json                 the pointer, replaced in one step and last of all
    STORE/canary.json                  an adapter that serves a share of the keys, if there is one

The trainer writes it and the worker reads it. A reader needs the pointer and the directory alone.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from worker.contract.codec import decode, encode
from worker.contract.digest import write_atomically
from worker.contract.errors import AdapterRefused
from worker.contract.manifest import MANIFEST_NAME, Manifest, read_manifest
from worker.contract.verify import load_adapter, load_stages

CURRENT_NAME = "current.json"
CANARY_NAME = "canary.json"
HISTORY_NAME = "history.jsonl"

Move = Literal["publish", "force", "promote", "rollback"]
"""How an adapter became current."""

_P = TypeVar("_P")

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which adapter is current, since when (UTC, ISO 8601), set by whom and why.

    ``previous`` is the adapter that a rollback returns to, None where there is none. ``event`` is
    how the adapter became current: one that a person forced or rolled back to is not compared
    with the one that served before.
    """

    digest: str
    name: str
    since: str
    previous: str | None
    by: str
    reason: str | None
    event: Move
    schema: Literal["current/1"] = "current/1"

    def __post_init__(self) -> None:
        # A digest becomes a path: nothing but a digest may.
        for digest in (self.digest, self.previous):
            if digest is not None and not is_digest(digest):
                raise ValueError(f"{digest!r} is not a digest of 64 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class CanaryPointer:
    """Which adapter is the canary, for which share of the keys (above 0, at most 1), since when,
    set by whom and why. ``forced``: published although the gate refused it."""

    digest: str
    name: str
    share: float
    since: str
    by: str
    reason: str | None
    forced: bool = False
    schema: Literal["canary/1"] = "canary/1"

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise ValueError(f"{self.digest!r} is not a digest of 64 hexadecimal digits")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Found:
    """An adapter's directory, and the pointer that led to it (None: it was named directly)."""

    directory: Path
    pointer: Pointer | None


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is an adapter's digest, whole and in lower case."""
    return _DIGEST.fullmatch(text) is not None


def find_adapter(path: Path) -> Found:
    """Return ``path`` when it is an adapter, or the current adapter when it is a store.

    Only the manifest is read, and it must have the digest that the pointer names; ``load_adapter``
    verifies the files. A path that is neither is returned as it is, for ``load_adapter`` to refuse.
    Raises AdapterRefused when a store has no current adapter or its pointer is bad.
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


def find_stored(store: Path | None, named: str) -> tuple[Path, str, str]:
    """Return directory, digest and name of an adapter that is given by its directory, or by the
    first digits of its digest in a store. Only the manifest is read. Raises AdapterRefused.
    """
    if store is not None and re.fullmatch(r"[0-9a-f]{4,64}", named):
        found = [
            directory
            for directory in sorted(store.iterdir())
            if is_digest(directory.name) and directory.name.startswith(named)
        ]
        if len(found) != 1:
            raise AdapterRefused(store, f"holds {len(found)} adapters whose digest begins {named}")
        manifest = read_manifest(found[0])
        _check_name(found[0], manifest)
        return found[0], manifest.digest, manifest.name
    manifest = read_manifest(Path(named))
    return Path(named), manifest.digest, manifest.name


def load_stored(store: Path, digest: str) -> Manifest:
    """Verify a stored adapter, every file of it and its name, of a cascade also its stages, and
    return its manifest.

    Raises AdapterRefused.
    """
    manifest = load_adapter(store / digest)
    _check_name(store / digest, manifest)
    if manifest.stages:
        load_stages(store / digest, manifest)
    return manifest


def read_pointer(store: Path) -> Pointer | None:
    """Return a store's pointer, None where there is none. Raises AdapterRefused."""
    return _read(Pointer, store / CURRENT_NAME)


def read_canary(store: Path) -> CanaryPointer | None:
    """Return a store's canary, None where there is none. Raises AdapterRefused."""
    return _read(CanaryPointer, store / CANARY_NAME)


def write_pointer(store: Path, pointer: Pointer) -> None:
    """Make an adapter current, in one step: a reader sees the old pointer or the new one.

    When it raises OSError the old pointer stands, or the new one does and may not survive a power
    cut.
    """
    _write(store / CURRENT_NAME, pointer)


def write_canary(store: Path, canary: CanaryPointer) -> None:
    """Make an adapter the canary, or change its share, in one step. Raises OSError."""
    _write(store / CANARY_NAME, canary)


def remove_canary(store: Path) -> None:
    """Remove the canary's pointer, if there is one, durably. Raises OSError."""
    (store / CANARY_NAME).unlink(missing_ok=True)
    directory = os.open(store, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(kind: type[_P], path: Path) -> _P | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        pointer = decode(kind, data, "the pointer")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(path, f"not a pointer to an adapter: {error}") from error
    assert isinstance(pointer, kind)
    return pointer


def _write(path: Path, pointer: Pointer | CanaryPointer) -> None:
    text = json.dumps(encode(pointer), indent=1, ensure_ascii=False)
    write_atomically(path, text.encode("utf-8") + b"\n")


def _check_name(directory: Path, manifest: Manifest) -> None:
    if manifest.digest != directory.name:
        raise AdapterRefused(
            directory / MANIFEST_NAME,
            f"has the digest {manifest.digest[:12]}… and is stored under another: it was altered; "
            "publish the adapter again",
        )
