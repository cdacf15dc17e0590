"""Putting an adapter into a store: copied beside, verified, synced, then renamed into place."""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from pathlib import Path

from trainer.errors import ProofFailed
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, load_adapter
from worker.contract.digest import sync_directory
from worker.contract.store import CANARY_NAME, CURRENT_NAME, is_digest, load_stored

STALE_S = 3600.0
"""A leftover of a process that cannot be asked (another machine's) is swept after so long."""

_INCOMING, _DAMAGED = ".incoming", ".damaged"


def place_adapter(source: Path, store: Path, manifest: Manifest) -> Path:
    """Copy a verified adapter to ``store/<digest>`` and return that directory.

    The name appears only when every byte has reached the disk and was read back. A directory
    that is there already and sound is left alone; one that is damaged is replaced. Raises
    AdapterRefused, ProofFailed or OSError, and then leaves nothing of its own behind.
    """
    target = store / manifest.digest
    if _is_sound(store, manifest.digest):
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


def sweep(store: Path, now_s: float | None = None) -> list[Path]:
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


def _is_sound(store: Path, digest: str) -> bool:
    if not (store / digest).exists():
        return False
    try:
        load_stored(store, digest)
    except AdapterRefused:
        return False
    return True


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
