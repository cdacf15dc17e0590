"""Every move of a store's pointers but publishing: promote the canary, end it, roll back.

Each is made under the store's lock, with its line in the history written before the pointer moves.
The pointer alone makes an adapter current, so that a kill before it leaves the old one serving, and
the same command again completes. Nothing here needs more than the worker's own packages: a small
image can do it.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import BadInput
from trainer.store.files import locked, remove_leftovers, stored_digests
from trainer.store.history import Entry, Event, append_entry, path_to, pointer_for, read_history
from worker.contract import Manifest
from worker.contract.store import (
    CanaryPointer,
    Pointer,
    load_stored,
    read_canary,
    read_pointer,
    remove_canary,
    write_pointer,
)
from worker.contract.timestamps import rfc3339_now


@dataclass(frozen=True, slots=True)
class Signature:
    """Who moves, and when: what the lock, the history and the record say alike."""

    by: str
    at: str

    def entry(
        self,
        event: Event,
        adapter: Manifest | CanaryPointer,
        current: Pointer | None,
        reason: str | None,
    ) -> Entry:
        """Return the history's line for a move of ``adapter`` while ``current`` is current."""
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
    """Hold the store's lock and tell who does. Raises BadInput where another one holds it."""
    signature = Signature(_who(), rfc3339_now())
    with locked(store, signature.by, signature.at):
        yield signature


def promote_canary(store: Path, *, reason: str | None = None) -> tuple[Pointer, Pointer]:
    """Make the canary current, for every key; return the pointers before and after.

    ``current`` is moved first and the canary's pointer removed then: between the two, and after a
    kill between them, workers serve the same adapter in both roles. The adapter is verified first.
    Raises BadInput and AdapterRefused.
    """
    _require_canary(store)
    with moving(store) as signature:
        canary, before = _require_canary(store), read_pointer(store)
        if before is None:
            raise BadInput(f"{store}: nothing is current there")
        if before.digest == canary.digest:  # killed between the two
            remove_canary(store)
            return before, before
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

    Return the pointers before and after; they are equal when ``to`` is current already. The
    adapter is verified first. Raises BadInput and AdapterRefused; the pointer is then as it was.
    """
    _require_reason(reason)
    before = read_pointer(store)
    if before is None:
        raise BadInput(f"{store}: nothing is current there: no store, or nothing published yet")
    with moving(store) as signature:
        before = read_pointer(store) or before
        target = _find(store, to) if to else _previous(store, before)
        if target == before.digest:
            return before, before
        manifest = load_stored(store, target)
        remove_leftovers(store)
        entry = signature.entry("rollback", manifest, before, reason)
        return before, point_current(store, entry)


def point_current(store: Path, entry: Entry) -> Pointer:
    """Append an entry to the history, then point to its adapter. Call it with the lock held."""
    entry = append_entry(store, entry)
    way_back = path_to(read_history(store), entry.digest)
    pointer = pointer_for(entry, way_back[-2] if len(way_back) > 1 else None)
    write_pointer(store, pointer)
    return pointer


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise BadInput("--reason: say why; it is recorded in the store's history")


def _require_canary(store: Path) -> CanaryPointer:
    canary = read_canary(store)
    if canary is None:
        raise BadInput(f"{store}: there is no canary: clerk-trainer publish --canary SHARE")
    return canary


def _find(store: Path, prefix: str) -> str:
    known = stored_digests(store)
    found = [digest for digest in known if digest.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(digest[:12] for digest in (found or known))
    problem = "names no adapter; there are" if not found else "names several:"
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
    """Name the user and the machine, as far as they have names."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
