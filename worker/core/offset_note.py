"""The note beside a committed offset: who has the partition open, and which records are suspect.

Kafka keeps a string with each committed offset of a group (``offset.metadata.max.bytes``, 4,096 by
default). It is committed with the offset, by whoever owns the partition and nobody else, and read
by the next owner: so suspicion survives a lost process and a takeover, and needs no topic.

The note is JSON of version 1; offsets are relative to the committed one. What is of another
version, or not ours, says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

VERSION = 1
_MAX_RANGES = 48
"""So many ranges of offsets at most: a note stays below 1,500 bytes. Nearer ones are joined, by
which records are suspected that are not to blame; trying them acquits them."""

Ranges = tuple[range, ...]


@dataclass(frozen=True, slots=True)
class OffsetNote:
    """What one owner of a partition leaves to the next.

    ``opened_by`` names the process that has the partition open, None once it was closed in good
    order; ``group`` are the records that its engine may have, None: any from the committed offset
    on; ``alone``: nothing else was in that engine. ``deaths`` counts those of the engine in a row
    by which ``suspects`` were narrowed down, ``lone_deaths`` those with the one suspect alone.
    ``condemned`` are those that killed it alone too often, each with the deaths it took, and
    ``unproven`` counts what was put aside since the engine last answered anything.
    """

    opened_by: str | None = None
    group: Ranges | None = None
    alone: bool = False
    deaths: int = 0
    lone_deaths: int = 0
    suspects: Ranges = ()
    condemned: tuple[tuple[int, int], ...] = ()
    unproven: int = 0

    def encode(self, offset: int) -> str:
        """Write it for the committed ``offset``; empty when there is nothing to say."""
        fields: dict[str, Any] = {}
        if self.opened_by is not None:
            fields["by"] = self.opened_by
            if self.group is not None:
                fields["group"] = _flat(self.group, offset)
            if self.alone:
                fields["alone"] = 1
        for name in ("deaths", "lone_deaths", "unproven"):
            if getattr(self, name):
                fields[name] = getattr(self, name)
        if self.suspects:
            fields["suspects"] = _flat(self.suspects, offset)
        if self.condemned:
            fields["condemned"] = [
                number for at, deaths in self.condemned for number in (at - offset, deaths)
            ]
        if not fields:
            return ""
        return json.dumps({"v": VERSION, **fields}, separators=(",", ":"))


def read_note(text: str, offset: int) -> OffsetNote:
    """Read the note beside the committed ``offset``. What cannot be read says nothing."""
    try:
        fields = json.loads(text) if text else None
        if not isinstance(fields, dict) or fields.get("v") != VERSION:
            return OffsetNote()
        opened_by = fields.get("by")
        condemned = _numbers(fields.get("condemned", []))
        return OffsetNote(
            opened_by=opened_by if isinstance(opened_by, str) else None,
            group=_ranges(fields["group"], offset) if "group" in fields else None,
            alone=fields.get("alone") == 1,
            deaths=_number(fields.get("deaths", 0)),
            lone_deaths=_number(fields.get("lone_deaths", 0)),
            suspects=_ranges(fields.get("suspects", []), offset),
            condemned=tuple(
                (offset + at, deaths)
                for at, deaths in zip(condemned[::2], condemned[1::2], strict=True)
            ),
            unproven=_number(fields.get("unproven", 0)),
        )
    except (ValueError, RecursionError):
        return OffsetNote()


def to_ranges(offsets: Iterable[int]) -> Ranges:
    """Return the ranges that these offsets make up, in order."""
    found: list[range] = []
    for offset in sorted(set(offsets)):
        if found and found[-1].stop == offset:
            found[-1] = range(found[-1].start, offset + 1)
        else:
            found.append(range(offset, offset + 1))
    return tuple(found)


def without(ranges: Ranges, before: int, offsets: Iterable[int]) -> Ranges:
    """Return what is left of ranges from the offset ``before`` on, without these offsets."""
    left: list[range] = []
    cuts = sorted(set(offsets))
    for each in ranges:
        start = max(before, each.start)
        for cut in cuts:
            if start <= cut < each.stop:
                left.append(range(start, cut))
                start = cut + 1
        left.append(range(start, each.stop))
    return tuple(each for each in left if each)


def _flat(ranges: Sequence[range], offset: int) -> list[int]:
    """Return start and length of each, relative to ``offset``; few enough for a note."""
    return [
        number
        for each in _joined(ranges)
        for number in (each.start - offset, each.stop - each.start)
    ]


def _joined(ranges: Sequence[range]) -> Sequence[range]:
    if len(ranges) <= _MAX_RANGES:
        return ranges
    gaps = sorted(after.start - before.stop for before, after in pairwise(ranges))
    smallest = gaps[len(ranges) - _MAX_RANGES - 1]
    joined = [ranges[0]]
    left = len(ranges) - _MAX_RANGES
    for each in ranges[1:]:
        if left and each.start - joined[-1].stop <= smallest:
            joined[-1] = range(joined[-1].start, each.stop)
            left -= 1
        else:
            joined.append(each)
    return joined


def _ranges(value: object, offset: int) -> Ranges:
    numbers = _numbers(value)
    return tuple(
        range(offset + start, offset + start + length)
        for start, length in zip(numbers[::2], numbers[1::2], strict=True)
    )


def _numbers(value: object) -> list[int]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return [_number(each) for each in value]


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError("no count")
    return value
