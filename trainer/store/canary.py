"""An adapter on trial: the pointer beside ``current`` that says for which share of the keys."""

from __future__ import annotations

from pathlib import Path

from trainer.store.history import Entry, append_entry
from worker.contract.store import CanaryPointer, remove_canary, write_canary


def put_on_trial(store: Path, entry: Entry, *, forced: bool) -> CanaryPointer:
    """Append an entry to the history, then have workers serve its adapter to its share.

    Call it with the lock held.
    """
    assert entry.share is not None
    entry = append_entry(store, entry)
    assert entry.share is not None
    canary = CanaryPointer(
        entry.digest, entry.name, entry.share, entry.at, entry.by, entry.reason, forced
    )
    write_canary(store, canary)
    return canary


def take_off_trial(store: Path, entry: Entry) -> None:
    """Append an entry to the history, then end the trial. Call it with the lock held."""
    append_entry(store, entry)
    remove_canary(store)
