"""One writer at a time: an advisory lock that ends with its holder, also one that was killed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import BadInput

LOCK_NAME = ".lock"


@contextmanager
def locked(store: Path, holder: str, now: str) -> Iterator[None]:
    """Hold a store's lock (flock(2)); ``holder`` and ``now`` are told to whoever comes second.

    Raises BadInput when another process holds it, naming that one, and where the file system
    knows no locks.
    """
    path = store / LOCK_NAME
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise BadInput(_taken(store, path)) from error
            raise BadInput(
                f"{path}: this file system cannot lock ({error.strerror}): publish on one that can"
            ) from error
        _sign(handle, holder, now)
        yield
    except OSError as error:  # a failed write does not know its file: say at least which store
        error.filename = error.filename or str(store)
        raise
    finally:
        os.close(handle)  # the lock goes with it; the file stays, or two could lock two files


def _sign(handle: int, holder: str, now: str) -> None:
    """Write down who holds the lock. It is a courtesy: a full disk is no reason to stop here."""
    try:
        os.ftruncate(handle, 0)
        text = json.dumps({"by": holder, "pid": os.getpid(), "since": now})
        os.pwrite(handle, text.encode("utf-8"), 0)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise


def _taken(store: Path, path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"{holder['by']} (process {holder['pid']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"  # it has not signed yet
    return f"{store}: {who} is publishing or rolling back: try again when that has ended"
