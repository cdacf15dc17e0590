"""Which adapter is meant: a directory, a store's current one, or the beginning of a digest."""

from __future__ import annotations

import re
from pathlib import Path

from worker.contract.manifest import MANIFEST_NAME
from worker.contract.store import CURRENT_NAME, HISTORY_NAME, find_adapter, is_digest
from worker.errors import SettingsError

CURRENT = "current"
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def resolve(name: str, configured: Path | None) -> Path:
    """Return the directory of the adapter that ``name`` stands for.

    ``configured`` is ``model.adapter``: a store, or an adapter in or outside of one. Raises
    SettingsError when nothing or several adapters are meant, and AdapterRefused when a store's
    pointer is bad.
    """
    if name == CURRENT:
        if configured is None:
            raise SettingsError("'current' is the adapter that model.adapter names: set it")
        store = _store(configured)
        return find_adapter(store or configured).directory
    path = Path(name)
    if path.is_dir():
        found = find_adapter(path).directory
        if not (found / MANIFEST_NAME).exists():
            raise SettingsError(f"{path}: has no {MANIFEST_NAME}: it is no adapter and no store")
        return found
    if not _PREFIX.fullmatch(name):
        raise SettingsError(
            f"{name!r} is no directory: name an adapter's directory, a store, 'current', or at "
            "least 4 digits of a digest in the store that model.adapter names"
        )
    store = _store(configured) if configured is not None else None
    if store is None:
        raise SettingsError(
            f"{name!r} is looked for in a store, and model.adapter names none: "
            "-s model.adapter=STORE"
        )
    stored = [one.name for one in store.iterdir() if is_digest(one.name) and one.is_dir()]
    matches = sorted(one for one in stored if one.startswith(name))
    if len(matches) != 1:
        told = f"{len(matches)} adapters" if matches else "no adapter"
        raise SettingsError(f"{store}: {told} with a digest that begins with {name}")
    return store / matches[0]


def _store(configured: Path) -> Path | None:
    """The store that is named, or that the adapter named is in."""
    for one in (configured, configured.parent):
        if (one / CURRENT_NAME).exists() or (one / HISTORY_NAME).exists():
            return one
    return None
