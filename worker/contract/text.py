"""What is done to a message's text before it is tokenized, the same in training and serving.

A manifest names the rules that its adapter was trained with, and changing them changes the name.
All of them take time in proportion to the text's length at most, whatever the text is.
"""

from __future__ import annotations

import re
import unicodedata

from worker.contract.digest import sha256_bytes

# Runs of combining marks: found in linear time, before any other Unicode work.
#
# Putting a run of marks into canonical order takes time that grows with the square of its length,
# and nothing else runs in the process meanwhile: one message of marks alone would stop a worker.
# Unicode's Stream-Safe Text Format (UAX #15, section 13) therefore bounds a run to 30.


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


NORMALIZATION = "nfc-2"
"""Name of the rules in ``normalize``, by which adapters are trained."""

MAX_CHARS = 65_536
"""A longer text is cut in the middle before anything else is done to it: four times what the
default budget of 512 tokens can keep of it (``worker.contract.prompt``)."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\ud800-\udfff\ufffe\uffff]")
_BLANKS = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r"\n{3,}")


def normalize(text: str) -> str:
    """Return ``text`` in NFC with control characters removed and runs of blanks replaced by one.

    Line ends become ``\\n``; three or more become two. Lone surrogates, which JSON can carry
    and no encoder accepts, are dropped with the control characters. What is beyond ``MAX_CHARS``
    is left out of the middle, and what is beyond 30 combining marks in a row at the end of them
    (UAX #15, Stream-Safe Text Format, which would put a joiner there instead).
    """
    text = _without_controls(_cut(text.strip()))
    if not text.isascii():
        text = bound_marks(unicodedata.normalize("NFC", bound_marks(text)))
        text = _cut(text)  # some characters come apart into three
    return _with_single_blanks(text)


def is_too_long(text: str) -> bool:
    """Whether ``normalize`` leaves something out of the middle."""
    return len(text.strip()) > MAX_CHARS


def message_sha256(message: str) -> str:
    """Return the digest by which a person's decision names the text that it was made on.

    It is taken over the normalized text: of a message as it came and of the same message in a
    dataset it is the same.
    """
    return sha256_bytes(normalize(message).encode("utf-8", "surrogatepass"))


def _cut(text: str) -> str:
    """Leave out the middle of a long text. A line end stands there, so that a second time nothing
    more is cut and nothing grows together."""
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[: half - 1]}\n{text[-half:]}"


def _without_controls(text: str) -> str:
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _with_single_blanks(text: str) -> str:
    return _NEWLINES.sub("\n\n", _BLANKS.sub(" ", text)).strip()
