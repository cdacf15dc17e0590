"""Folders of the cache that are made once, whole or not at all."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """Return ``directory``, filled by ``make`` first if it is not there.

    ``make`` gets a folder beside it, which becomes ``directory`` when it returns; what it raises is
    raised, and nothing is left then. Several processes may call it at once: one makes it and the
    others wait.
    """
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock(directory.with_name(f"{directory.name}.lock")):
        if directory.is_dir():
            return directory
        scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        try:
            make(scratch)
            scratch.chmod(0o755)
            scratch.rename(directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return directory


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
