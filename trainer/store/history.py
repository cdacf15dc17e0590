"""The history of a store: one line for every move of its pointers, and the way back in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from trainer.errors import BadInput
from worker.contract.codec import LEAVE_OUT_EMPTY, decode, encode
from worker.contract.store import HISTORY_NAME, Move, Pointer

Event = Literal[Move, "canary", "end_canary"]
"""How an adapter became current, or became the canary for a ``share`` of the keys, or ceased to
be it."""


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
    """Return the entries, oldest first. A last line that was cut by a kill is none.

    Raises BadInput with the line at fault.
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
    """Append an entry and bring it to the disk, or find it there already from a killed try.

    Return the entry that stands. Raises BadInput or OSError; after a full disk the file is as
    long as before. Call it with the lock held.
    """
    last = read_history(store)[-1:]
    if last and _same(last[0], entry):
        return last[0]
    handle = os.open(store / HISTORY_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = _whole_lines(handle)
        line = (json.dumps(encode(entry), ensure_ascii=False) + "\n").encode("utf-8")
        try:
            os.ftruncate(handle, end)  # a line that a kill cut was never an entry
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
    """Return the adapters that rollbacks pass on the way back, oldest first, ``current`` last.

    Publishing goes forward and rolling back undoes it, so that two rollbacks in a row go two
    adapters back instead of there and back again.
    """
    path: list[str] = []
    for entry in history:
        _align(path, entry.previous)
        if entry.event in {"canary", "end_canary"}:
            continue
        if entry.event == "rollback" and entry.digest in path:
            _align(path, entry.digest)
        elif path[-1:] != [entry.digest]:  # a damaged copy was published again in its place
            path.append(entry.digest)
    _align(path, current)
    return tuple(path)


def _align(path: list[str], top: str | None) -> None:
    """Drop moves that never happened: what was current is the end of the path."""
    if top is None:
        path.clear()
    elif top in path:
        del path[len(path) - path[::-1].index(top) :]
    else:
        path[:] = [top]


def pointer_for(entry: Entry, back: str | None) -> Pointer:
    """Return the pointer that an entry announces; ``back`` is what a rollback would go to."""
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
