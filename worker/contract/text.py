"""What is done to a message's text before it is tokenized, the same in training and serving."""

from __future__ import annotations

import re
import unicodedata

from worker.contract.digest import sha256_bytes

NORMALIZATION = "nfc-1"
"""Name of the rules in ``normalize``. A manifest records it; changing the rules changes it."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\ud800-\udfff\ufffe\uffff]")
_BLANKS = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r"\n{3,}")


def normalize(text: str) -> str:
    """Return ``text`` in NFC with control characters removed and runs of blanks replaced by one.

    Line ends become ``\\n``; three or more become two. Lone surrogates, which JSON can carry
    and no encoder accepts, are dropped with the control characters.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    text = unicodedata.normalize("NFC", text)
    text = _BLANKS.sub(" ", text)
    text = _NEWLINES.sub("\n\n", text)
    return text.strip()


def message_sha256(message: str) -> str:
    """Return the digest by which a person's decision names the text that it was made on.

    It is taken over the normalized text: of a message as it came and of the same message in a
    dataset it is the same.
    """
    return sha256_bytes(normalize(message).encode("utf-8", "surrogatepass"))
