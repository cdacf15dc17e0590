"""How a message is shown: as text, whatever it holds, and what cannot be seen as a mark."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_JOINERS = {"\u200c", "\u200d"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message. ``mark`` is the name of a character that cannot be seen, "" for text."""

    text: str
    mark: str = ""


def pieces(text: str) -> Iterator[Piece]:
    """Yield a message in parts: runs of text, and each character that hides, joins, turns the
    direction or controls as a mark.

    Joiners within words of scripts that need them, and within emoji, stay as they are; so do tabs
    and line breaks.
    """
    text = text.replace("\r\n", "\n")
    start = 0
    for at, char in enumerate(text):
        if char.isascii() and (char >= " " or char in "\n\t") and char != "\x7f":
            continue
        if not _is_hidden(text, at):
            continue
        if start < at:
            yield Piece(text[start:at])
        yield Piece("", f"U+{ord(char):04X}")
        start = at + 1
    if start < len(text):
        yield Piece(text[start:])


def mark_name(mark: str) -> str:
    """Return what a marked character is called."""
    return unicodedata.name(chr(int(mark.partition("+")[2], 16)), "control character").lower()


def age(seconds: float | None) -> str:
    """Return an age in words that fit a column."""
    if seconds is None:
        return "–"
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{max(0, int(seconds))} s"


def moment(ms: int | None) -> str:
    """Return a time (Unix, ms) as UTC."""
    if ms is None:
        return "–"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def percent(share: float, digits: int = 0) -> str:
    """Return a share (0 to 1) in per cent."""
    return f"{100 * share:.{digits}f} %"


def number(value: float) -> str:
    """Return a figure without more places than it has."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def chance(p_value: float) -> str:
    """Return how often something happens by chance, in words."""
    if p_value < 0.001:
        return "less than 1 time in 1,000"
    if p_value < 0.1:
        return f"{max(1, round(1000 * p_value))} times in 1,000"
    return f"{round(100 * p_value)} times in 100"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def words(name: str) -> str:
    """Return a label's name as it is read."""
    return name.replace("_", " ")


def _is_hidden(text: str, at: int) -> bool:
    char = text[at]
    kind = unicodedata.category(char)
    if kind not in {"Cf", "Cc", "Cs", "Co", "Zl", "Zp"} and char not in "\u115f\u1160\u3164\uffa0":
        return False
    if char in _JOINERS and 0 < at < len(text) - 1:
        return not (_joins(text[at - 1]) and _joins(text[at + 1]))
    return True


def _joins(char: str) -> bool:
    """Tell whether a joiner beside this character means something: in Indic and Arabic words, in
    emoji. Between Latin letters it hides."""
    if ord(char) < 0x0590:
        return False
    return unicodedata.category(char) in {"Lo", "Mn", "Mc", "So", "Sk"}
