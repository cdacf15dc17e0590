"""An adapter store: immutable adapters named by their digests, and a pointer to the current one.

    STORE/<digest>/                    an adapter, never changed
    STORE/<digest>.predictions.jsonl   its answers on the hold-out, without message text
    STORE/<digest>.probes.json         messages to try it on, if any: private (see verify)
    STORE/<digest>.json                its record: evaluation, gate, who, when and why
    STORE/<digest>.README.md           its model card
    STORE/history.jsonl                every move of the pointer, appended before the move
    STORE/current.json                 the pointer, replaced atomically and last of all
    STORE/canary.json                  an adapter that serves a share of the keys, if any

The trainer writes the store. A worker reads the pointers and the adapters' directories alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from worker.contract.codec import decode, encode
from worker.contract.digest import sync_directory, write_atomically
from worker.contract.errors import AdapterRefused
from worker.contract.manifest import MANIFEST_NAME, Manifest, is_digest, read_manifest
from worker.contract.verify import load_adapter, load_stages

CURRENT_NAME = "current.json"
CANARY_NAME = "canary.json"
HISTORY_NAME = "history.jsonl"

Move = Literal["publish", "force", "promote", "rollback"]
"""How an adapter became current."""

_P = TypeVar("_P")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The current adapter, since when (UTC, ISO 8601), set by whom and why.

    ``previous`` is the adapter that a rollback returns to, if any. ``event`` is how the adapter
    became current: after a forced publication or a rollback the worker does not compare it with
    the adapter that served before.
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
        # The digest becomes a path: anything else could lead out of the store.
        for digest in (self.digest, self.previous):
            if digest is not None and not is_digest(digest):
                raise ValueError(f"{digest!r} is not a digest of 64 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class CanaryPointer:
    """The canary, its share of the keys (above 0, at most 1), since when, set by whom and why.
    ``forced``: published although the gate refused it."""

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


def find_adapter(path: Path) -> Found:
    """Return ``path`` if it is an adapter, or the current adapter if it is a store.

    Only the manifest is checked, against the pointer's digest; ``load_adapter`` verifies the files.
    A path that is neither is returned unchanged, for ``load_adapter`` to refuse. Raises
    AdapterRefused for a store without a current adapter or with a bad pointer.
    """
    if (path / MANIFEST_NAME).exists():
        return Found(path, None)
    pointer = read_pointer(path)
    if pointer is None:
        if (path / HISTORY_NAME).exists():
            raise AdapterRefused(
                path / CURRENT_NAME, "missing: no publication to this store was completed"
            )
        return Found(path, None)
    directory = path / pointer.digest
    # A manifest altered in place has another digest; serving it would mislabel its results.
    _check_name(directory, read_manifest(directory))
    return Found(directory, pointer)


def stored_digests(store: Path) -> list[str]:
    """Return the digests of a store's adapters, sorted."""
    return sorted(each.name for each in store.iterdir() if is_digest(each.name) and each.is_dir())


def find_stored(store: Path | None, named: str) -> tuple[Path, str, str]:
    """Return directory, digest and name of an adapter given by its directory, or by the first 4 or
    more digits of its digest in a store. Only the manifest is read. Raises AdapterRefused."""
    # Fewer than 4 digits would often be ambiguous.
    if store is not None and re.fullmatch(r"[0-9a-f]{4,64}", named):
        found = [store / digest for digest in stored_digests(store) if digest.startswith(named)]
        if len(found) != 1:
            raise AdapterRefused(store, f"holds {len(found)} adapters whose digest begins {named}")
        manifest = read_manifest(found[0])
        _check_name(found[0], manifest)
        return found[0], manifest.digest, manifest.name
    manifest = read_manifest(Path(named))
    return Path(named), manifest.digest, manifest.name


def load_stored(store: Path, digest: str) -> Manifest:
    """Verify every file of a stored adapter, its directory's name, and a cascade's stages; return
    its manifest. Raises AdapterRefused."""
    manifest = load_adapter(store / digest)
    _check_name(store / digest, manifest)
    if manifest.stages:
        load_stages(store / digest, manifest)
    return manifest


def read_pointer(store: Path) -> Pointer | None:
    """Return a store's pointer, or None. Raises AdapterRefused."""
    return _read(Pointer, store / CURRENT_NAME)


def read_canary(store: Path) -> CanaryPointer | None:
    """Return a store's canary, or None. Raises AdapterRefused."""
    return _read(CanaryPointer, store / CANARY_NAME)


def write_pointer(store: Path, pointer: Pointer) -> None:
    """Make an adapter current: a reader sees the old pointer or the new one.

    After an OSError either the old pointer is in place, or the new one, which may not survive a
    power cut.
    """
    _write(store / CURRENT_NAME, pointer)


def write_canary(store: Path, canary: CanaryPointer) -> None:
    """Make an adapter the canary, or change its share. Raises OSError."""
    _write(store / CANARY_NAME, canary)


def remove_canary(store: Path) -> None:
    """Remove the canary's pointer, if any, durably. Raises OSError."""
    (store / CANARY_NAME).unlink(missing_ok=True)
    sync_directory(store)


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
            f"has the digest {manifest.digest[:12]}… but is stored under another, so it was "
            "altered: publish the adapter again",
        )
