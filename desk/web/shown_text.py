"""How a message is shown: bounded, and with everything that cannot be seen made visible.

Anyone can send a message, so what one page shows of it has a limit, whatever it holds: an element
for each of a million hidden characters stops the reviewer's browser. The rest is on a page of its
own (``chunks``), which the reviewer asks for.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from desk.service.viewing import SHOWN_CHARS

MOST_MARKS = 100
"""With more runs of hidden characters than this a text cannot be read for marks: it is shown
without them, and a line below says how many were left out."""

CHUNK_CHARS = 4_000

_JOINERS = {"\u200c", "\u200d"}

_SELECTORS = frozenset(
    chr(code)
    for first, last in ((0x180B, 0x180D), (0x180F, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for code in range(first, last + 1)
)

# What Unicode's DerivedCoreProperties.txt calls Default_Ignorable_Code_Point and does not have one
# of the categories below: fillers of Hangul and Khmer, and the combining grapheme joiner.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"

MOST_STACKED = 10
"""No script puts more combining marks on a letter; a browser needs seconds for thousands."""


def _class_of(*kinds: str, more: str = "") -> str:
    """Return the characters of these categories as a class of ``re``. They are ranges: single
    characters beyond the first plane would be compared one by one."""
    ranges: list[list[int]] = []
    # The planes in between have none of them, the last two are of category Co.
    for code in (*range(0x20000), *range(0xE0000, 0xE1000)):
        if unicodedata.category(chr(code)) not in kinds and chr(code) not in more:
            continue
        if code in {0x09, 0x0A}:
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    if "Co" in kinds:
        ranges.append([0xF0000, 0x10FFFF])
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"


_HIDDEN = _class_of("Cf", "Cc", "Cs", "Co", "Zl", "Zp", more="".join(_SELECTORS) + _FILLERS)
_COMBINING = _class_of("Mn", "Me")
_MAYBE_HIDDEN = re.compile(f"{_HIDDEN}+|(?<={_COMBINING}{{{MOST_STACKED}}}){_COMBINING}+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message: text, or a run of hidden characters, which is shown as a mark."""

    text: str
    hidden: bool = False

    @property
    def mark(self) -> str:
        """What stands for a hidden run: its character and how many, or ``12 hidden``."""
        return _mark(self.text)

    @property
    def names(self) -> str:
        """The names of the characters in a hidden run, the three most frequent."""
        return names(Counter(self.text))


@dataclass(frozen=True, slots=True)
class ShownText:
    """A message as a page shows it. ``cut`` is how many characters follow that it does not show,
    ``left_out`` which hidden characters it does not mark, with how often each occurs."""

    pieces: tuple[Piece, ...]
    cut: int
    left_out: Mapping[str, int]


def shown_text(text: str, most_chars: int = SHOWN_CHARS, more_chars: int = 0) -> ShownText:
    """Return what a page shows of a message: ``2 * MOST_MARKS + 1`` pieces at most, with
    ``most_chars`` characters that can be seen. ``more_chars`` are not in ``text``.

    Time is proportional to what is shown and the hidden characters before its end.
    """
    found: list[Piece] = []
    room, marks, length = most_chars, 0, 0
    for piece in pieces(text):
        if piece.hidden:
            marks += 1
            found.append(piece)
        else:
            found.append(Piece(piece.text[:room]))
            room -= len(found[-1].text)
        length += len(found[-1].text)
        if not room:
            break
    # "\r\n" counts as one, as it does in the pieces.
    cut = len(text) - text.count("\r\n") - length + more_chars
    left_out: Counter[str] = Counter()
    if marks > MOST_MARKS:
        for piece in found:
            left_out.update(piece.text if piece.hidden else "")
        found = [Piece("".join(each.text for each in found if not each.hidden))]
    return ShownText(tuple(each for each in found if each.text), cut, left_out)


def pieces(text: str) -> Iterator[Piece]:
    """Yield a message in parts: text, and runs of characters that hide, join, turn the direction,
    control, or pile up on one letter.

    Joiners within words of scripts that need them, and within emoji, stay as they are; so do
    variation selectors after what they vary, tabs and line breaks.
    """
    text = text.replace("\r\n", "\n")
    start = 0
    for found in _MAYBE_HIDDEN.finditer(text):
        at, end = found.span()
        # Only the first of a run can be needed: after a hidden one there is nothing to join.
        while at < end and _is_needed(text, at):
            at += 1
        # A long text of emoji has joiners and nothing hidden: yield its beginning early.
        if start < at and (at < end or at - start > CHUNK_CHARS):
            yield Piece(text[start:at])
            start = at
        if at < end:
            yield Piece(text[at:end], hidden=True)
            start = end
    if start < len(text):
        yield Piece(text[start:])


def chunks(text: str) -> Iterator[str]:
    """Yield a whole message in chunks of about ``CHUNK_CHARS``, with ``[U+200B]`` for a hidden one.

    Marks are text here, not elements: a browser lays out a megabyte of text within a second.
    """
    held: list[str] = []
    room = CHUNK_CHARS
    for piece in pieces(text):
        part = f"[{piece.mark}]" if piece.hidden else piece.text
        while len(part) >= room:
            # At a line's end, if one is near: the browser begins a line with each chunk.
            end = part.rfind("\n", room // 2, room) + 1
            yield "".join((*held, part[: end or room])).removesuffix("\n" if end else "")
            part = part[end or room :]
            held, room = [], CHUNK_CHARS
        held.append(part)
        room -= len(part)
    if any(held):
        yield "".join(held)


@lru_cache(64)
def _mark(hidden: str) -> str:
    count = len(hidden)
    if len(set(hidden)) > 1:
        return f"{count:,} hidden"
    return f"U+{ord(hidden[0]):04X}" + (f" ×{count:,}" if count > 1 else "")


def names(found: Mapping[str, int]) -> str:
    """Return the names of hidden characters, the three most frequent with their counts."""
    most = Counter(found).most_common(3)
    said = [
        unicodedata.name(char, f"control character U+{ord(char):04X}").lower()
        + (f" ×{count:,}" if count > 1 else "")
        for char, count in most
    ]
    return ", ".join(said) + (", …" if len(found) > len(most) else "")


def _is_needed(text: str, at: int) -> bool:
    """Tell whether a character that is not seen itself changes how its neighbours look."""
    if at == 0:
        return False
    char, before = text[at], text[at - 1]
    if char in _SELECTORS:
        # Keycaps, signs that are emoji too, and scripts. A run of selectors carries a secret.
        kinds = {"Lo", "So", "Sm", "Sk", "Po", "Pd"}
        return before in "0123456789#*" or (
            not before.isascii() and unicodedata.category(before) in kinds
        )
    return char in _JOINERS and at < len(text) - 1 and _joins(before) and _joins(text[at + 1])


def _joins(char: str) -> bool:
    """Tell whether a joiner next to this character has a use: in Indic and Arabic words, in emoji.
    Between Latin letters it hides."""
    if ord(char) < 0x0590:
        return False
    return unicodedata.category(char) in {"Lo", "Mn", "Mc", "So", "Sk"}
