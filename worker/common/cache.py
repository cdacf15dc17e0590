"""The cache folder, and directories in it that are made once and completely."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_LEFTOVER_S = 24 * 3600


def cache_folder() -> Path:
    """Return ``$CLERK_CACHE``, or ``filing-clerk`` in the user's cache folder, without creating
    it."""
    if named := os.environ.get("CLERK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "filing-clerk"


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """Return ``directory``; if it does not exist, let ``make`` fill it first.

    ``make`` gets a temporary folder that is renamed to ``directory`` at the end, so an existing
    directory is complete. If it raises, nothing is left. Concurrent processes wait for the first.
    """
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.is_dir():  # made by another process while this one waited for the lock
            return directory
        _remove_leftovers(directory.parent)
        scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".partial-"))
        try:
            make(scratch)
            scratch.chmod(0o755)  # mkdtemp's 0700 would hide it from other users of the cache
            _rename(scratch, directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return directory


def _rename(scratch: Path, directory: Path) -> None:
    try:
        scratch.rename(directory)
    except OSError:
        if not directory.is_dir():  # otherwise another process was first: locks fail on some NFS
            raise


def _remove_leftovers(folder: Path) -> None:
    """Remove folders of killed processes; younger ones may still be in use."""
    for path in folder.glob(".partial-*"):
        if time.time() - path.stat().st_mtime > _LEFTOVER_S:
            shutil.rmtree(path, ignore_errors=True)
