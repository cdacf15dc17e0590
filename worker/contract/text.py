"""Normalize a message's text before it is tokenized, by the same rules in training and serving.

A manifest names the rules that its adapter was trained with (``NORMALIZATION``); changing a rule
changes the name. Every rule takes time linear in the text's length, also for hostile text.
"""

from __future__ import annotations

import re
import unicodedata

from worker.contract.digest import sha256_bytes
from worker.contract.html_text import html_to_text, is_html

# Combining marks. ``unicodedata.normalize`` sorts a run of marks in time quadratic in its length
# while it holds the GIL, so one message of nothing but marks would stop a worker. Runs are
# therefore cut to 30 first, as in Unicode's Stream-Safe Text Format (UAX #15, section 13).


# 131,000 marks took 11 s, and 44 s if each decomposes into two.
STREAM_SAFE_MARKS = 30
"""The longest run of marks in stream-safe text: far more than any language puts on a letter."""

_FIRST, _LAST = 0x300, 0x1FFFF
"""Code points between which all combining marks lie; a test checks all of Unicode."""


def is_mark(character: str) -> bool:
    """Whether a character decomposes into marks alone (combining class not 0)."""
    return all(unicodedata.combining(part) for part in unicodedata.normalize("NFD", character))


def _ranges() -> str:
    """All marks, as the inside of a regular expression's character class."""
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
# The lookbehind makes a match begin at the start of a run. Without it the regex would try again
# from each mark of a short run: quadratic.
_TOO_LONG = re.compile(f"(?<!{_MARK})({_MARK}{{{STREAM_SAFE_MARKS}}}){_MARK}+")


def bound_marks(text: str) -> str:
    """Drop the marks beyond 30 in a row."""
    return text if text.isascii() else _TOO_LONG.sub(r"\1", text)


NORMALIZATION = "html-1+nfc-2"
"""Name of the rules in ``normalize``: those for HTML, then the others. A manifest records it."""

MAX_CHARS = 65_536
"""A longer text is cut in the middle first: four times the characters that the default budget of
512 tokens can keep (``worker.contract.prompt``)."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\ud800-\udfff\ufffe\uffff]")
# Blanks of every kind, such as no-break spaces, except line ends.
_BLANKS = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r"\n{3,}")


# Mail that was escaped once too often, and then a sample of code in it.
_HTML_LEVELS = 3


def normalize(text: str) -> str:
    """Return ``text`` in NFC with control characters removed and runs of blanks replaced by one.

    A body that is HTML is first reduced to its text (``worker.contract.html_text``). Line ends
    become ``\\n``; three or more become two. Lone surrogates, which JSON can carry and no encoder
    accepts, are dropped with the control characters. The middle of a text longer than
    ``MAX_CHARS`` is dropped, and so are combining marks beyond 30 in a row. (UAX #15 would insert a
    joiner instead of dropping them.) Normalizing twice changes nothing.
    """
    if "<" not in text:
        return _tidy(text)
    text = _tidy(html_to_text(text))
    # The text of HTML can be HTML. What a dataset holds must not change when it is read again.
    for _ in range(_HTML_LEVELS):
        if not is_html(text):
            return text
        text = _tidy(html_to_text(text))
    return _tidy(text.replace("<", " ")) if is_html(text) else text


def _tidy(text: str) -> str:
    text = _without_controls(_cut(text.strip()))
    if not text.isascii():
        # NFC can lengthen a run: some letters decompose into a letter and marks.
        text = bound_marks(unicodedata.normalize("NFC", bound_marks(text)))
        text = _cut(text)  # NFC can lengthen the text: some characters become three
    return _with_single_blanks(text)


def is_too_long(text: str) -> bool:
    """Whether ``normalize`` drops the middle of the text."""
    return len(text) > MAX_CHARS and len(html_to_text(text).strip()) > MAX_CHARS


def message_sha256(message: str) -> str:
    """Return the digest by which a reviewer's decision names its message.

    It covers the normalized text, so that a message as received and the same message in a dataset
    have the same digest.
    """
    return sha256_bytes(normalize(message).encode("utf-8", "surrogatepass"))


def _cut(text: str) -> str:
    """Replace the middle of a long text by a line end: the halves stay apart, and the result is
    short enough not to be cut again."""
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[: half - 1]}\n{text[-half:]}"


def _without_controls(text: str) -> str:
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _with_single_blanks(text: str) -> str:
    return _NEWLINES.sub("\n\n", _BLANKS.sub(" ", text)).strip()
