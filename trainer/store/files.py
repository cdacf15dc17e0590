"""The store on disk: its lock, its adapters, each written whole, and what dead processes left."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import BadInput, ProofFailed
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, load_adapter
from worker.contract.digest import sync_directory
from worker.contract.store import CANARY_NAME, CURRENT_NAME, is_digest, load_stored

LOCK_NAME = ".lock"

STALE_S = 3600.0
"""A leftover of a process that cannot be asked (another machine's) is swept after so long."""

_INCOMING, _DAMAGED = ".incoming", ".damaged"


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


def place_adapter(source: Path, store: Path, manifest: Manifest) -> Path:
    """Copy a verified adapter to ``store/<digest>`` and return that directory.

    The name appears only when every byte has reached the disk and was read back. A directory
    that is there already and sound is left alone; one that is damaged is replaced. Raises
    AdapterRefused, ProofFailed or OSError, and then leaves nothing of its own behind.
    """
    target = store / manifest.digest
    if is_sound(store, manifest.digest):
        return target
    incoming = store / _own_name(_INCOMING)
    damaged = store / _own_name(_DAMAGED)
    try:
        incoming.mkdir()
        incoming.chmod(0o755)  # whatever the publisher's umask: workers run as another user
        for name in (*manifest.files, MANIFEST_NAME):  # the manifest last, here too
            _copy(source / name, incoming / name)
        sync_directory(incoming)
        found = load_adapter(incoming)
        if found.digest != manifest.digest:
            raise ProofFailed(f"{source}: changed while it was copied: publish it again")
        if target.exists():
            target.rename(damaged)
        incoming.rename(target)
        sync_directory(store)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(damaged, ignore_errors=True)
    return target


def stored_digests(store: Path) -> list[str]:
    """Return the digests of all adapters in a store, those without a record too."""
    return sorted(path.name for path in store.iterdir() if is_digest(path.name) and path.is_dir())


def is_sound(store: Path, digest: str) -> bool:
    """Tell whether a store holds an adapter, whole and as its manifest says."""
    if not (store / digest).exists():
        return False
    try:
        load_stored(store, digest)
    except AdapterRefused:
        return False
    return True


def remove_leftovers(store: Path, now_s: float | None = None) -> list[Path]:
    """Remove what dead processes left behind and return it. Call it with the lock held.

    Swept is what a process of this machine that is gone has left, and what is an hour old.
    """
    now_s = time.time() if now_s is None else now_s
    swept = []
    for path in sorted(store.iterdir()):
        if not _is_temporary(path.name):
            continue
        owner = _dead_owner(path.name)
        if owner or now_s - path.stat().st_mtime > STALE_S:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            swept.append(path)
    return swept


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


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o444)  # published adapters are never changed, and readable by every worker


def _own_name(kind: str) -> str:
    return f"{kind}.{os.getpid()}.{uuid.uuid4().hex[:8]}.{socket.gethostname()}"


def _is_temporary(name: str) -> bool:
    """Ours, or one that ``write_atomically`` made: a dot, the file's name, a random ending."""
    if name.startswith((f"{_INCOMING}.", f"{_DAMAGED}.", f".{CURRENT_NAME}.", f".{CANARY_NAME}.")):
        return True
    return name.startswith(".") and is_digest(name[1:65]) and name[65:66] == "."


def _dead_owner(name: str) -> bool:
    """Tell whether a temporary's name holds a process of this machine that is gone."""
    kind, _, rest = name[1:].partition(".")
    pid, _, rest = rest.partition(".")
    _, _, host = rest.partition(".")
    if f".{kind}" not in {_INCOMING, _DAMAGED} or host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False
