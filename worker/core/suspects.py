"""Which records of a partition may have crashed the engine, and the note that says so in Kafka.

Kafka keeps a string with each committed offset of a group (``offset.metadata.max.bytes``, 4,096 by
default). Only the partition's owner can commit it, in the same step as its results, and the next
owner reads it. Suspects therefore survive a dead process and a takeover without a topic of their
own.

The note is JSON; its offsets are relative to the committed one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1

PROVEN_DEATHS = 3
"""A record is rejected after this many engine deaths while it was alone in the engine. Two would
do for a guilty one; an engine that dies of one record in 300 at random would then reject an
innocent one in about six of its crashes per thousand, with three in about two per 100,000."""

_MAX_DEATHS = 64
"""Records with proven deaths that a note has room for; each of them cost a crash."""


@dataclass(frozen=True, slots=True)
class OffsetNote:
    """What one owner of a partition leaves to the next.

    ``owner`` is the process that has the partition open, None once it closed it. ``suspects`` are
    the offsets that may have crashed the engine; ``deaths`` counts, by offset, the deaths of an
    engine that had nothing but this record.
    """

    owner: str | None = None
    suspects: range = range(0)
    deaths: Mapping[int, int] = field(default_factory=dict)

    def encode(self, offset: int) -> str:
        """Write the note for the committed ``offset``; empty if there is nothing to say."""
        fields: dict[str, Any] = {}
        if self.owner is not None:
            fields["by"] = self.owner
        if self.suspects:
            fields["suspects"] = [self.suspects.start - offset, len(self.suspects)]
        if self.deaths:
            newest = sorted(self.deaths.items())[:_MAX_DEATHS]
            fields["deaths"] = [number for at, count in newest for number in (at - offset, count)]
        return json.dumps({"v": VERSION, **fields}, separators=(",", ":")) if fields else ""


def read_note(text: str, offset: int) -> OffsetNote:
    """Read the note of the committed ``offset``. A note that is not ours is an empty note."""
    try:
        fields = json.loads(text) if text else None
        if not isinstance(fields, dict) or fields.get("v") != VERSION:
            return OffsetNote()
        owner = fields.get("by")
        first, length = _counts(fields.get("suspects", [0, 0]))
        deaths = _counts(fields.get("deaths", []))
        return OffsetNote(
            owner if isinstance(owner, str) else None,
            range(offset + first, offset + first + length),
            {offset + at: n for at, n in zip(deaths[::2], deaths[1::2], strict=True)},
        )
    except (ValueError, RecursionError):
        return OffsetNote()


class Suspects:
    """The suspects of one partition while it is assigned. ``committed`` is its committed offset.

    Without a ``process`` (crash isolation is off) nothing is suspected and nothing is noted.
    """

    def __init__(self, process: str | None, committed: int, note: OffsetNote) -> None:
        self.committed = committed
        self.reported = False
        """Whether a listener was told of suspects that are not cleared yet."""
        self._process = process
        self._range = note.suspects
        self._deaths = dict(note.deaths)
        self._cleared: set[int] = set()

    @classmethod
    def take_over(cls, note: OffsetNote, committed: int, window: range, process: str) -> Suspects:
        """Take a partition over from the owner that left ``note``.

        A partition that another process left open makes all of ``window`` suspect: it may have
        crashed on any of them. It may also have lost the partition in good health, so an open note
        never counts as a death.
        """
        if note.owner not in (None, process):
            note = OffsetNote(suspects=window, deaths=note.deaths)
        return cls(process, committed, note)

    def __contains__(self, offset: int) -> bool:
        """Tell whether the record at ``offset`` is suspect."""
        return offset in self._deaths or (offset in self._range and offset not in self._cleared)

    def __len__(self) -> int:
        """Count the suspect offsets; some may not be records."""
        certain = sum(offset not in self._range for offset in self._deaths)
        return certain + len(self._range) - len(self._cleared)

    @property
    def noted(self) -> bool:
        """Whether this partition's offsets are committed with notes."""
        return self._process is not None

    def deaths(self, offset: int) -> int:
        """Return how many proven deaths the record at ``offset`` has."""
        return self._deaths.get(offset, 0)

    @property
    def most_deaths(self) -> int:
        """Return the proven deaths of the record that has most."""
        return max(self._deaths.values(), default=0)

    def clear(self, offset: int) -> None:
        """The record at ``offset`` got an answer, alone in the engine."""
        self._deaths.pop(offset, None)
        if offset in self._range:
            self._cleared.add(offset)

    def blame(self, first: int, last: int) -> None:
        """The engine died with records from ``first`` to ``last``: these are the suspects now."""
        self._suspect(range(first, last + 1))

    def prove(self, offset: int, *, decides: bool = True) -> None:
        """The engine died while it had nothing but this record: that explains the last crash.

        A death that does not decide leaves the record one short of a conviction.
        """
        most = PROVEN_DEATHS if decides else PROVEN_DEATHS - 1
        self._deaths[offset] = max(self.deaths(offset), min(self.deaths(offset) + 1, most))
        self._suspect(range(0))

    def commit(self, offset: int) -> None:
        """``offset`` was committed: whatever lies before it has its result."""
        self.committed = offset
        if offset >= self._range.stop:
            self._suspect(range(0))
        if self._deaths:
            self._deaths = {at: count for at, count in self._deaths.items() if at >= offset}

    def note(self, offset: int, *, closing: bool = False) -> str:
        """Return what to commit with ``offset``, now or when the partition is closed."""
        left = self._range
        start = max(offset, left.start)
        while start in self._cleared:
            start += 1
        return OffsetNote(
            None if closing else self._process,
            range(start, max(start, left.stop)),
            {at: count for at, count in self._deaths.items() if at >= offset},
        ).encode(offset)

    def _suspect(self, offsets: range) -> None:
        self._range = offsets
        self._cleared.clear()


def _counts(value: object) -> list[int]:
    if not isinstance(value, list) or not all(
        type(each) is int and 0 <= each < 1 << 62 for each in value
    ):
        raise ValueError("not a list of counts")
    return value
