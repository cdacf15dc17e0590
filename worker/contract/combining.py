"""Runs of combining marks: found in linear time, before any other Unicode work.

Putting a run of marks into canonical order takes time that grows with the square of its length,
and nothing else runs in the process meanwhile: one message of marks alone would stop a worker.
Unicode's Stream-Safe Text Format (UAX #15, section 13) therefore bounds a run to 30.
"""

from __future__ import annotations

import re
import unicodedata

STREAM_SAFE_MARKS = 30
"""The longest run of marks in stream-safe text: far more than any language puts on a letter."""

_FIRST, _LAST = 0x300, 0x1FFFF
"""Where combining marks are: a test looks at all of Unicode."""


def is_mark(character: str) -> bool:
    """Whether a character is, or comes apart into, nothing but marks (combining class not 0)."""
    return all(unicodedata.combining(part) for part in unicodedata.normalize("NFD", character))


def _ranges() -> str:
    """All marks, as what stands between the brackets of a regular expression."""
    ranges: list[list[int]] = []
    for code in range(_FIRST, _LAST + 1):
        if not unicodedata.combining(chr(code)) and not unicodedata.decomposition(chr(code)):
            continue
        if not is_mark(chr(code)):
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


_MARK = f"[{_ranges()}]"
# A run is looked at from its beginning only: else short runs would be read once for each mark.
_TOO_LONG = re.compile(f"(?<!{_MARK})({_MARK}{{{STREAM_SAFE_MARKS}}}){_MARK}+")


def bound_marks(text: str) -> str:
    """Return ``text`` with what is beyond 30 marks in a row left out."""
    return text if text.isascii() else _TOO_LONG.sub(r"\1", text)
