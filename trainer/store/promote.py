"""The end of a trial: the canary becomes current, or goes."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import BadInput
from trainer.store.canary import take_off_trial
from trainer.store.files import sweep
from trainer.store.history import Entry
from trainer.store.lock import locked
from trainer.store.publish import move_pointer, who
from worker.contract.store import (
    CanaryPointer,
    Pointer,
    load_stored,
    read_canary,
    read_pointer,
    remove_canary,
)
from worker.contract.timestamps import rfc3339_now


def promote(store: Path, *, reason: str | None = None) -> tuple[Pointer, Pointer]:
    """Make the canary current, for every key; return the pointers before and after.

    ``current`` is moved first and the canary's pointer removed then: between the two, and after a
    kill between them, workers serve the same adapter in both roles. The adapter is verified first.
    Raises BadInput and AdapterRefused.
    """
    _canary(store)
    by, at = who(), rfc3339_now()
    with locked(store, by, at):
        canary, before = _canary(store), read_pointer(store)
        if before is None:
            raise BadInput(f"{store}: nothing is current there")
        if before.digest == canary.digest:  # killed between the two
            remove_canary(store)
            return before, before
        load_stored(store, canary.digest)
        sweep(store)
        entry = Entry("promote", at, by, canary.digest, canary.name, before.digest, reason)
        after = move_pointer(store, entry)
        remove_canary(store)
        return before, after


def end_canary(store: Path, *, reason: str) -> CanaryPointer:
    """End the trial; the current adapter serves every key again. Raises BadInput."""
    if not reason.strip():
        raise BadInput("--reason: say why; it is recorded in the store's history")
    by, at = who(), rfc3339_now()
    with locked(store, by, at):
        canary, current = _canary(store), read_pointer(store)
        previous = current.digest if current else None
        entry = Entry("end_canary", at, by, canary.digest, canary.name, previous, reason)
        take_off_trial(store, entry)
        return canary


def _canary(store: Path) -> CanaryPointer:
    canary = read_canary(store)
    if canary is None:
        raise BadInput(
            f"{store}: no adapter is on trial there: clerk-trainer publish --canary SHARE"
        )
    return canary
