"""Messages' texts on a page: every character seen and none obeyed, long ones cut and folded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MOST_CHARACTERS = 2_000
_EXCERPT = 220


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as a page shows it: ``rest`` is folded away, ``cut`` counts characters that are left
    out; ``unknown``: there is no such message where it was looked for."""

    start: str
    rest: str = ""
    cut: int = 0
    unknown: bool = False


def show_text(texts: Mapping[str, str] | None, name: str) -> Shown | None:
    """Return the text of the message with an id, None where texts are left out."""
    if texts is None:
        return None
    found = texts.get(name)
    if found is None:
        return Shown("", unknown=True)
    text = readable(found)
    cut = max(0, len(text) - MOST_CHARACTERS)
    text = text[:MOST_CHARACTERS]
    if len(text) <= _EXCERPT * 1.5:
        return Shown(text, cut=cut)
    blank = text.rfind(" ", _EXCERPT // 2, _EXCERPT)
    at = blank + 1 if blank > 0 else _EXCERPT
    return Shown(text[:at], text[at:], cut)


def readable(text: str) -> str:
    """Return a text in which every control character is seen instead of obeyed.

    C0 controls become their pictures (U+2400 on), lone surrogates and C1 controls U+FFFD: neither
    may stand in a UTF-8 page. Line breaks and tabs stay; markup is escaped by the template.
    """
    kept = []
    for character in text:
        code = ord(character)
        if code < 0x20 and character not in "\n\t":
            kept.append(chr(0x2400 + code))
        elif 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(character)
    return "".join(kept)
