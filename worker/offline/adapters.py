"""Which adapter a name stands for: a directory, a store's current one, or digits of a digest."""

from __future__ import annotations

import re
from pathlib import Path

from worker.contract.manifest import MANIFEST_NAME, is_digest
from worker.contract.store import CURRENT_NAME, HISTORY_NAME, find_adapter
from worker.errors import SettingsError

CURRENT = "current"
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def resolve_adapter(name: str, configured: Path | None) -> Path:
    """Return the directory of the adapter that ``name`` stands for.

    ``configured`` is ``model.adapter``: a store, or an adapter in a store or on its own. Raises
    SettingsError when the name matches no adapter or several, and AdapterRefused when a store's
    pointer is bad.
    """
    if name == CURRENT:
        if configured is None:
            raise SettingsError("'current' is the adapter that model.adapter names: set it")
        store = store_of(configured)
        return find_adapter(store or configured).directory
    path = Path(name)
    if path.is_dir():
        found = find_adapter(path).directory
        if not (found / MANIFEST_NAME).exists():
            raise SettingsError(
                f"{path}: is neither an adapter nor a store: it has no {MANIFEST_NAME}"
            )
        return found
    if not _PREFIX.fullmatch(name):
        raise SettingsError(
            f"{name!r} is no directory: give an adapter's directory, a store, 'current', or at "
            "least the first 4 digits of a digest in the store that model.adapter names"
        )
    store = store_of(configured) if configured is not None else None
    if store is None:
        raise SettingsError(
            f"{name!r} is looked up in a store, and model.adapter names none: "
            "-s model.adapter=STORE"
        )
    stored = [inner.name for inner in store.iterdir() if is_digest(inner.name) and inner.is_dir()]
    matches = sorted(digest for digest in stored if digest.startswith(name))
    if len(matches) != 1:
        matching = f"{len(matches)} adapters" if matches else "no adapter"
        raise SettingsError(f"{store}: {matching} with a digest that begins with {name}")
    return store / matches[0]


def store_of(configured: Path) -> Path | None:
    """Return the store that is configured, or that the configured adapter is in."""
    for folder in (configured, configured.parent):
        if (folder / CURRENT_NAME).exists() or (folder / HISTORY_NAME).exists():
            return folder
    return None
