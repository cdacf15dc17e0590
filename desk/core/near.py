"""Near-duplicates: keys of which two messages share one where they say nearly the same.

MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3): a text is the set of the four-character shingles of its words, without case, digits and
punctuation. ``BANDS`` bands of ``ROWS`` minima each: two texts of Jaccard similarity s share a band
with probability 1 - (1 - s^ROWS)^BANDS, which is 0.95 at 0.9, 0.70 at 0.8 and 0.06 at 0.5.
"""

from __future__ import annotations

import hashlib
import re
import zlib

BANDS = 4
ROWS = 6
_SHINGLE = 4
_MAX_CHARS = 4000
_WORD = re.compile(r"[^\W\d_]+")
_PRIME = (1 << 61) - 1  # of Mersenne: products are reduced fast
_SEEDS = [
    tuple(
        int.from_bytes(hashlib.sha256(f"near {row} {part}".encode()).digest()[:7], "big") + 1
        for part in "ab"
    )
    for row in range(BANDS * ROWS)
]


def band_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a text, ``BANDS`` of them; equal texts have equal ones.

    Of a long text the first 4,000 characters count: time is bounded whatever the text is.
    """
    words = f" {' '.join(_WORD.findall(text[:_MAX_CHARS].casefold()))} "
    shingles = {
        zlib.crc32(words[at : at + _SHINGLE].encode("utf-8", "surrogatepass"))
        for at in range(max(1, len(words) - _SHINGLE + 1))
    }
    minima = [min((a * shingle + b) % _PRIME for shingle in shingles) for a, b in _SEEDS]
    keys = []
    for band in range(BANDS):
        part = minima[band * ROWS : (band + 1) * ROWS]
        keys.append(hashlib.sha256(f"{band}:{part}".encode()).hexdigest()[:16])
    return tuple(keys)
