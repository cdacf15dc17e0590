"""Rolling back: the pointer goes to an adapter that the store holds already."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import BadInput
from trainer.store.files import sweep
from trainer.store.history import Entry, path_to, read_history
from trainer.store.lock import locked
from trainer.store.publish import move_pointer, who
from trainer.store.record import stored_digests
from worker.contract.store import Pointer, load_stored, read_pointer
from worker.contract.timestamps import rfc3339_now


def roll_back(store: Path, *, to: str | None = None, reason: str) -> tuple[Pointer, Pointer]:
    """Make the previous adapter current again, or the one whose digest begins with ``to``.

    Return the pointers before and after; they are equal when ``to`` is current already. The
    adapter is verified first. Raises BadInput and AdapterRefused; the pointer is then as it was.
    """
    if not reason.strip():
        raise BadInput("--reason: say why; it is recorded in the store's history")
    before = read_pointer(store)
    if before is None:
        raise BadInput(f"{store}: nothing is current there: no store, or nothing published yet")
    by, at = who(), rfc3339_now()
    with locked(store, by, at):
        before = read_pointer(store) or before
        target = _find(store, to) if to else _previous(store, before)
        if target == before.digest:
            return before, before
        manifest = load_stored(store, target)
        sweep(store)
        entry = Entry("rollback", at, by, target, manifest.name, before.digest, reason)
        return before, move_pointer(store, entry)


def _find(store: Path, prefix: str) -> str:
    found = [one for one in stored_digests(store) if one.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one[:12] for one in (found or stored_digests(store)))
    problem = "names no adapter; there are" if not found else "names several:"
    raise BadInput(f"{store}: --to {prefix} {problem} {known}")


def _previous(store: Path, current: Pointer) -> str:
    path = path_to(read_history(store), current.digest)
    previous = path[-2] if len(path) > 1 else current.previous
    if previous is None:
        raise BadInput(
            f"{store}: there is nothing before {current.name} ({current.digest[:12]}…): name an "
            "adapter with --to (clerk-trainer list shows them)"
        )
    return previous
