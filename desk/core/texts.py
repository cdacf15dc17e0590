"""Texts: cleaned for storage in a database, and compared."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import Any

from worker.contract.html_text import html_to_text


def storable(text: str) -> str:
    """Return a text without NUL, which PostgreSQL does not store, and with lone surrogates
    replaced."""
    text = text.replace("\x00", "")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def message_text(text: str) -> str:
    """Return a message as the desk keeps and shows it: ``storable``, and of HTML the text that the
    model read. A body without text, such as one image, is kept as its source."""
    return storable(html_to_text(text) or text)


def storable_json(value: Any) -> Any:
    """Return a JSON value with all its texts made ``storable``."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): storable_json(part) for name, part in value.items()}
    return [storable_json(part) for part in value] if isinstance(value, list) else value


# MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
# chapter 3): a text is the set of the four-character shingles of its words, without case, digits
# and punctuation. ``BANDS`` bands of ``ROWS`` minima each: two texts of Jaccard similarity s share
# a band with probability 1 - (1 - s^ROWS)^BANDS, which is 0.95 at 0.9, 0.70 at 0.8, 0.06 at 0.5.
BANDS = 4
ROWS = 6
_SHINGLE = 4
_MAX_CHARS = 4000
_MAX_CHARS_ALIKE = 1000
MIN_SIMILARITY = 0.12
"""Messages less alike than this are not shown as similar.

In 200,000 pairs of the demo's messages with different labels the median is 0.03; one pair in 1,000
reaches 0.11, one in 10,000 reaches 0.14. Of the four messages (of 500) with most words in common, a
quarter has the message's label; at 0.12 or above half of them do. At 0.14 it is still half, and a
quarter as many messages are left."""

_WORD = re.compile(r"[^\W\d_]+")
_PRIME = (1 << 61) - 1  # a Mersenne prime: products are reduced fast
# From SHA-256, because keys are stored: hash() and random differ between processes or versions of
# Python. Never 0: a factor of 0 would give all shingles one hash.
_SEEDS = [
    tuple(
        int.from_bytes(hashlib.sha256(f"near {row} {part}".encode()).digest()[:7], "big") + 1
        for part in "ab"
    )
    for row in range(BANDS * ROWS)
]


def band_keys(text: str) -> tuple[str, ...]:
    """Return the ``BANDS`` keys of a text. Equal texts have equal keys.

    Only the first 4,000 characters count, so that the time is bounded.
    """
    shingles = {
        zlib.crc32(each.encode("utf-8", "surrogatepass")) for each in _shingles(text, _MAX_CHARS)
    }
    minima = [min((a * shingle + b) % _PRIME for shingle in shingles) for a, b in _SEEDS]
    keys = []
    for band in range(BANDS):
        part = minima[band * ROWS : (band + 1) * ROWS]
        keys.append(hashlib.sha256(f"{band}:{part}".encode()).hexdigest()[:16])
    return tuple(keys)


def similarity(text: str, other: str) -> float:
    """Return the Jaccard similarity of two texts' shingles, from 0 to 1.

    Only the first 1,000 characters count. A text without a letter is like no other.
    """
    # Two blanks are the only shingle of a text without a letter.
    ours, theirs = (_shingles(each, _MAX_CHARS_ALIKE) - {"  "} for each in (text, other))
    return len(ours & theirs) / max(1, len(ours | theirs))


def _shingles(text: str, max_chars: int) -> set[str]:
    words = f" {' '.join(_WORD.findall(text[:max_chars].casefold()))} "
    return {words[at : at + _SHINGLE] for at in range(max(1, len(words) - _SHINGLE + 1))}
