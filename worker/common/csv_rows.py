"""Read the records of a CSV file that may be broken: what is wrong with one record does not hide
the others. Time is linear in the file's length, whatever quotes it holds."""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from worker.common.encodings import EncodingError

_DELIMITERS = (",", ";", "\t", "|")
_NONE = "\x1f"
"""The delimiter of a file with one column: a control character that separates fields."""

# The csv module rejects fields over 128 KiB; a message may have 1 MiB, and one that is longer is
# reported as such.
_FIELD_LIMIT = 2**31 - 1
_RECORD_CHARS = 1 << 24
_SNIFFED = 200
_REREAD_CHARS = 1 << 20
MAX_COLUMNS = 5_000


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file separates and quotes cells. ``delimiter`` None: one column. ``escaped``: quotes in
    cells are ``\\"`` instead of doubled. ``skip``: lines before the first record (``sep=;``)."""

    delimiter: str | None
    escaped: bool = False
    skip: int = 0


class _RecordTooLong(Exception):
    pass


class _Feed:
    """A file's lines for the csv module: it remembers those of the present record, and can give
    them again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._fresh = self._reread = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        size = 0
        while True:
            if self._again:
                line = self._again.popleft()
            elif line := next(self._lines, ""):
                self._fresh += len(line)
            else:
                return
            size = len(line) + (size if self.taken else 0)
            self.taken.append(line)
            if size > _RECORD_CHARS:
                raise _RecordTooLong
            yield line

    def resume(self) -> int:
        """Go back to the second line of the present record, and return the lines left out."""
        rest = self.taken[1:]
        self._reread += sum(map(len, rest))
        # A bound on reading again: a file of nothing but open quotes would take quadratic time.
        if not rest or self._reread > _REREAD_CHARS + 2 * self._fresh:
            return len(self.taken)
        self._again.extendleft(reversed(rest))
        return 1


def read_records(lines: Iterator[str], dialect: Dialect) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (line, cells) for each record, and (line, None) for one whose quotes are wrong, after
    which reading resumes at the next line. Blank records are skipped. Raises EncodingError for more
    than 5,000 columns."""
    csv.field_size_limit(_FIELD_LIMIT)
    feed = _Feed(lines)
    for _ in range(dialect.skip):
        next(lines, "")
    line = 1 + dialect.skip
    reader = _reader(iter(feed), dialect)
    while True:
        feed.taken.clear()
        try:
            record = next(reader)
        except StopIteration:
            return
        except (csv.Error, _RecordTooLong):
            yield line, None
            line += feed.resume()
            reader = _reader(iter(feed), dialect)
            continue
        if len(record) > MAX_COLUMNS:
            raise EncodingError(f"line {line} has more than {MAX_COLUMNS:,} columns")
        if any(record) and (len(record) > 1 or record[0].strip()):
            yield line, record
        line += len(feed.taken)


def _reader(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    return csv.reader(
        lines,
        delimiter=dialect.delimiter or _NONE,
        doublequote=not dialect.escaped,
        escapechar="\\" if dialect.escaped else None,
        strict=True,
    )


def sniff(lines: Sequence[str], delimiter: str | None = None) -> Dialect:
    """Return the dialect of a file that begins with ``lines``.

    A line ``sep=;`` decides. Else it is the delimiter by which most of the first records have as
    many cells as the most frequent width: spreadsheets write semicolons in countries with a decimal
    comma. ``delimiter`` is the user's choice.
    """
    # Not csv.Sniffer: it counts the commas in messages too.
    skip = 0
    first = lines[0].strip().strip('"') if lines else ""
    if first[:4].casefold() == "sep=" and len(first) <= 5:
        delimiter = delimiter or first[4:] or "\t"  # sep=<tab>, of which strip() left nothing
        skip = 1
    escapes = (False, True) if any('\\"' in line for line in lines) else (False,)
    candidates = [
        Dialect(each, escaped, skip)
        for escaped in escapes
        for each in ((delimiter,) if delimiter else _DELIMITERS)
    ]
    fits = [_fit(lines, dialect) for dialect in candidates]
    best = max(fits, key=lambda fit: (fit.share, fit.heads, fit.width))
    chosen = candidates[fits.index(best)]
    if delimiter is None and not best.heads and best.share <= _BARELY:
        return Dialect(None, chosen.escaped, skip)
    return chosen


_BARELY = 0.8
"""Commas in messages give up to this share of a one-column file's lines the same width."""


class _Fit(NamedTuple):
    """``share`` of the records have the most frequent ``width`` above one; ``heads``: so has the
    first."""

    share: float
    heads: bool
    width: int


def _fit(lines: Sequence[str], dialect: Dialect) -> _Fit:
    widths: list[int] = []
    for _, record in read_records(iter(lines), dialect):
        widths.append(len(record) if record else 0)
        if len(widths) == _SNIFFED:
            break
    several = Counter(width for width in widths if width > 1)
    if not several:
        return _Fit(0.0, False, 1)
    width = max(several, key=lambda each: (several[each], each))
    return _Fit(round(several[width] / len(widths), 1), widths[0] == width, width)
