"""A store on disk, and the moves of its pointers: promote the canary, end it, roll back.

Each move holds the store's lock and writes its line in the history before the pointer moves. Only
the pointer makes an adapter current, so that a process killed before that leaves the old one
serving, and the same command completes the move. This module needs only the worker's own packages,
so that the smallest image can use it."""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from trainer.errors import BadInput, ProofFailed
from trainer.store.remote import commit, fetch
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, load_adapter
from worker.contract.codec import LEAVE_OUT_EMPTY, decode, encode
from worker.contract.digest import sync_directory
from worker.contract.manifest import is_digest
from worker.contract.store import (
    CANARY_NAME,
    CURRENT_NAME,
    HISTORY_NAME,
    CanaryPointer,
    Move,
    Pointer,
    load_stored,
    read_canary,
    read_pointer,
    remove_canary,
    stored_digests,
    write_pointer,
)
from worker.contract.timestamps import rfc3339_now

# The folder: its lock, its adapters, each written whole, and leftovers of dead processes.


LOCK_NAME = ".lock"

STALE_S = 3600.0
"""Age at which leftovers of another machine are removed, whose processes cannot be checked."""

_INCOMING, _DAMAGED = ".incoming", ".damaged"


@contextmanager
def locked(store: Path, holder: str, now: str) -> Iterator[None]:
    """Hold a store's lock (flock(2)); ``holder`` and ``now`` are written into it.

    Raises BadInput if another process holds it, with that one's name, and if the file system does
    not support locks.
    """
    path = store / LOCK_NAME
    # For writing, which NFS demands of an exclusive lock, and not truncated, because the file names
    # the holder of a lock that is taken.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # NFS emulates flock by fcntl locks, which may answer EACCES when the lock is taken.
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise BadInput(_taken(store, path)) from error
            raise BadInput(
                f"{path}: this file system cannot lock ({error.strerror}): use one that can"
            ) from error
        _sign(handle, holder, now)
        yield
    except OSError as error:  # a failed write has no file name: name at least the store
        error.filename = error.filename or str(store)
        raise
    finally:
        # This releases the lock. The file stays: if it were removed, two could lock two files.
        os.close(handle)


def place_adapter(source: Path, store: Path, manifest: Manifest) -> Path:
    """Copy a verified adapter to ``store/<digest>`` and return that directory.

    The directory appears under its name only after every byte has reached the disk and was read
    back. A sound directory that already exists is kept; a damaged one is replaced. Raises
    AdapterRefused, ProofFailed or OSError, and then leaves no temporary files.
    """
    target = store / manifest.digest
    if is_sound(store, manifest.digest):
        return target
    incoming = store / _own_name(_INCOMING)
    damaged = store / _own_name(_DAMAGED)
    try:
        incoming.mkdir()
        incoming.chmod(0o755)  # despite the publisher's umask: workers run as another user
        for name in (*manifest.files, MANIFEST_NAME):  # the manifest last: it makes a copy whole
            _copy(source / name, incoming / name)
        sync_directory(incoming)
        found = load_adapter(incoming)
        if found.digest != manifest.digest:
            raise ProofFailed(f"{source}: changed while it was copied: publish it again")
        # A rename cannot replace a directory with files in it.
        if target.exists():
            target.rename(damaged)
        incoming.rename(target)
        sync_directory(store)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(damaged, ignore_errors=True)
    return target


def is_sound(store: Path, digest: str) -> bool:
    """Return whether a store has an adapter whose files match its manifest."""
    if not (store / digest).exists():
        return False
    try:
        load_stored(store, digest)
    except AdapterRefused:
        return False
    return True


def remove_leftovers(store: Path, now_s: float | None = None) -> list[Path]:
    """Remove temporary files of dead processes of this machine, and those older than an hour.

    Return the removed paths. Call it with the lock held.
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
    """Write the holder into the lock file."""
    # Only for the other process's error message, so a full disk does not stop the move here.
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
        who = "another process"  # it has not written its name yet
    return f"{store}: {who} is publishing or rolling back: try again when that has finished"


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o444)  # published adapters are never changed, and readable by every worker


def _own_name(kind: str) -> str:
    return f"{kind}.{os.getpid()}.{uuid.uuid4().hex[:8]}.{socket.gethostname()}"


def _is_temporary(name: str) -> bool:
    """Return whether a name is one of ours, or of ``write_atomically``: a dot, the file's name, and
    a random suffix."""
    if name.startswith((f"{_INCOMING}.", f"{_DAMAGED}.", f".{CURRENT_NAME}.", f".{CANARY_NAME}.")):
        return True
    return name.startswith(".") and is_digest(name[1:65]) and name[65:66] == "."


def _dead_owner(name: str) -> bool:
    """Return whether a temporary's name contains a dead process of this machine."""
    kind, _, rest = name[1:].partition(".")
    pid, _, rest = rest.partition(".")
    _, _, host = rest.partition(".")
    if f".{kind}" not in {_INCOMING, _DAMAGED} or host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    # PermissionError: the process lives and belongs to another user.
    except (PermissionError, ValueError):
        return False
    return False


# The history: one line for every move of the pointers, and the way back in it.

Event = Literal[Move, "canary", "end_canary"]
"""How an adapter became current, or became the canary, or stopped being it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One move: ``previous`` is the adapter that was current until then, and still is where a
    canary came or went.

    A kill between the line and the move leaves a line whose move never happened; the next line's
    ``previous`` tells.
    """

    event: Event
    at: str
    by: str
    digest: str
    name: str
    previous: str | None
    reason: str | None
    share: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)


def read_history(store: Path) -> tuple[Entry, ...]:
    """Return the entries, oldest first, without a last line that was cut off by a kill.

    Raises BadInput that names the line.
    """
    path = store / HISTORY_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    return tuple(_entries(path, text))


def append_entry(store: Path, entry: Entry) -> Entry:
    """Append an entry and fsync it, unless a killed attempt has already written it.

    Return the entry in the file. Raises BadInput or OSError; after an error the file has its
    earlier length. Call it with the lock held.
    """
    last = read_history(store)[-1:]
    if last and _same(last[0], entry):
        return last[0]
    handle = os.open(store / HISTORY_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = _whole_lines(handle)
        line = (json.dumps(encode(entry), ensure_ascii=False) + "\n").encode("utf-8")
        try:
            os.ftruncate(handle, end)  # drops a line that was cut off by a kill
            written = os.pwrite(handle, line, end)
            while written < len(line):
                written += os.pwrite(handle, line[written:], end + written)
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)
    return entry


def path_to(history: Sequence[Entry], current: str | None) -> tuple[str, ...]:
    """Return the adapters that rollbacks return to, oldest first, ``current`` last."""
    # A rollback removes the end of the path. If it were a step like a publication, a second
    # rollback would return to the adapter that the first one left.
    path: list[str] = []
    for entry in history:
        _align(path, entry.previous)
        # Neither moves the current adapter.
        if entry.event in {"canary", "end_canary"}:
            continue
        if entry.event == "rollback" and entry.digest in path:
            _align(path, entry.digest)
        elif path[-1:] != [entry.digest]:  # equal if a damaged copy was published again
            path.append(entry.digest)
    _align(path, current)
    return tuple(path)


def _align(path: list[str], top: str | None) -> None:
    """Drop moves that never happened, so that ``top``, the current adapter, ends the path."""
    if top is None:
        path.clear()
    elif top in path:
        del path[len(path) - path[::-1].index(top) :]
    else:
        path[:] = [top]


def pointer_for(entry: Entry, back: str | None) -> Pointer:
    """Return the pointer for an entry; ``back`` is the target of a rollback."""
    assert entry.event not in {"canary", "end_canary"}
    return Pointer(
        entry.digest, entry.name, entry.at, back, entry.by, entry.reason, cast("Move", entry.event)
    )


def _same(first: Entry, second: Entry) -> bool:
    return all(
        getattr(first, name) == getattr(second, name)
        for name in ("event", "by", "digest", "previous", "reason", "share")
    )


def _whole_lines(handle: int) -> int:
    data = os.pread(handle, os.fstat(handle).st_size, 0)
    return data.rfind(b"\n") + 1


def _entries(path: Path, text: str) -> Iterator[Entry]:
    whole, _, _ = text.rpartition("\n")
    for number, line in enumerate(whole.split("\n") if whole else (), 1):
        try:
            entry: Any = decode(Entry, json.loads(line), "the entry")
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: not an entry of a store's history: {error}") from None
        yield entry


@dataclass(frozen=True, slots=True)
class Signature:
    """Who moves a pointer, and when, for the lock, the history and the record."""

    by: str
    at: str

    def entry(
        self,
        event: Event,
        adapter: Manifest | CanaryPointer,
        current: Pointer | None,
        reason: str | None,
    ) -> Entry:
        """Return the history's entry for a move of ``adapter``."""
        return Entry(
            event=event,
            at=self.at,
            by=self.by,
            digest=adapter.digest,
            name=adapter.name,
            previous=current.digest if current else None,
            reason=reason,
        )


@contextmanager
def moving(store: Path) -> Iterator[Signature]:
    """Hold the store's lock; yield the signature for the move, and write it to the bucket, if the
    store is in one. Raises BadInput if the lock is taken, or another move came first."""
    signature = Signature(_who(), rfc3339_now())
    with locked(store, signature.by, signature.at):
        yield signature
        commit(store)


def promote_canary(store: Path, *, reason: str | None = None) -> tuple[Pointer, Pointer]:
    """Make the canary current for every key; return the pointers before and after.

    The adapter is verified first. Raises BadInput and AdapterRefused.
    """
    # current is moved before the canary's pointer is removed, so that after a kill in between
    # workers serve the same adapter in both roles.
    # Checked before the lock as well, which would leave its file in a folder that is not a store.
    _require_canary(store)
    with moving(store) as signature:
        # Again: the process that held the lock until now may have moved both.
        canary, before = _require_canary(store), read_pointer(store)
        if before is None:
            raise BadInput(f"{store}: no adapter is current: publish one (clerk-trainer publish)")
        if before.digest == canary.digest:  # an earlier attempt was killed in between
            remove_canary(store)
            return before, before
        fetch(store, canary.digest)
        load_stored(store, canary.digest)
        remove_leftovers(store)
        after = point_current(store, signature.entry("promote", canary, before, reason))
        remove_canary(store)
        return before, after


def end_canary(store: Path, *, reason: str) -> CanaryPointer:
    """End the canary; the current adapter serves every key again. Raises BadInput."""
    _require_reason(reason)
    with moving(store) as signature:
        canary, current = _require_canary(store), read_pointer(store)
        append_entry(store, signature.entry("end_canary", canary, current, reason))
        remove_canary(store)
        return canary


def roll_back(store: Path, *, to: str | None = None, reason: str) -> tuple[Pointer, Pointer]:
    """Make the previous adapter current again, or the one whose digest begins with ``to``.

    Return the pointers before and after, which are equal if ``to`` is already current. The adapter
    is verified first. Raises BadInput and AdapterRefused, and then does not move the pointer.
    """
    _require_reason(reason)
    # Before the lock, which would leave its file in a folder that is not a store.
    before = read_pointer(store)
    if before is None:
        raise BadInput(f"{store}: no adapter is current: not a store, or nothing published yet")
    with moving(store) as signature:
        before = read_pointer(store) or before
        target = _find(store, to) if to else _previous(store, before)
        if target == before.digest:
            return before, before
        fetch(store, target)
        manifest = load_stored(store, target)
        remove_leftovers(store)
        entry = signature.entry("rollback", manifest, before, reason)
        return before, point_current(store, entry)


def point_current(store: Path, entry: Entry) -> Pointer:
    """Append an entry to the history, then point to its adapter. Call it with the lock held."""
    # The history first: a line whose move never happened can be recognized (see Entry), a move
    # without a line could not.
    entry = append_entry(store, entry)
    way_back = path_to(read_history(store), entry.digest)
    pointer = pointer_for(entry, way_back[-2] if len(way_back) > 1 else None)
    write_pointer(store, pointer)
    return pointer


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise BadInput("--reason: is empty: give the reason, which the store's history records")


def _require_canary(store: Path) -> CanaryPointer:
    canary = read_canary(store)
    if canary is None:
        raise BadInput(
            f"{store}: there is no canary: start one with clerk-trainer publish --canary SHARE"
        )
    return canary


def _find(store: Path, prefix: str) -> str:
    known = stored_digests(store)
    found = [digest for digest in known if digest.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(digest[:12] for digest in (found or known))
    problem = "matches no adapter; there are" if not found else "matches several:"
    raise BadInput(f"{store}: --to {prefix} {problem} {listed}")


def _previous(store: Path, current: Pointer) -> str:
    path = path_to(read_history(store), current.digest)
    previous = path[-2] if len(path) > 1 else current.previous
    if previous is None:
        raise BadInput(
            f"{store}: there is nothing before {current.name} ({current.digest[:12]}…): name an "
            "adapter with --to (clerk-trainer list shows them)"
        )
    return previous


def _who() -> str:
    """Return user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
