"""Resolve an adapter's name: a directory, a store, "current", or the first digits of a digest."""

from __future__ import annotations

import re
from pathlib import Path

from worker.common.bucket import url_of
from worker.common.mirror import bring_store
from worker.contract.manifest import MANIFEST_NAME
from worker.contract.store import CURRENT_NAME, HISTORY_NAME, find_adapter, stored_digests
from worker.errors import SettingsError

CURRENT = "current"
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def resolve_adapter(name: str, configured: Path | None) -> Path:
    """Return the directory of the adapter called ``name``.

    ``configured`` is ``model.adapter``: a store, or an adapter inside or outside a store. Raises
    SettingsError unless the name matches exactly one adapter, and AdapterRefused for a store with a
    bad pointer.
    """
    if name == CURRENT:
        if configured is None:
            raise SettingsError("'current' is the adapter in model.adapter: set model.adapter")
        bring_store(configured)
        store = store_of(configured)
        return find_adapter(store or configured).directory
    path = Path(name)
    if path.is_dir():
        found = find_adapter(path).directory
        if not (found / MANIFEST_NAME).exists():
            raise SettingsError(
                f"{path}: not an adapter or a store, because it has no {MANIFEST_NAME}"
            )
        return found
    if not _PREFIX.fullmatch(name):
        raise SettingsError(
            f"{name!r} is not a directory: give an adapter's directory, a store, 'current', or the "
            "first 4 or more digits of a digest in the store of model.adapter"
        )
    if configured is not None:
        bring_store(configured, name)
    store = store_of(configured) if configured is not None else None
    if store is None:
        raise SettingsError(
            f"cannot look up the digest {name!r}: model.adapter is not a store; add "
            "-s model.adapter=STORE"
        )
    matches = [digest for digest in stored_digests(store) if digest.startswith(name)]
    # Ambiguous digits are an error: guessing would compare or replay with the wrong adapter.
    if len(matches) != 1:
        matching = f"{len(matches)} adapters" if matches else "no adapter"
        raise SettingsError(f"{store}: {matching} with a digest beginning with {name}")
    return store / matches[0]


def store_of(configured: Path) -> Path | None:
    """Return the configured store, or the store of the configured adapter, if any."""
    for folder in (configured, configured.parent):
        if url_of(folder) or (folder / CURRENT_NAME).exists() or (folder / HISTORY_NAME).exists():
            return folder
    return None
