"""The key of each label, and the two letters that find one among many."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, combinations, product

from worker.contract.taxonomy import Label, Taxonomy

MANY_LABELS = 20
"""With more labels nobody remembers a letter for each: the page finds them as you type, the likely
ones are the first, and only ten have a key, beside those that the settings name."""

# The other buttons have u, s, f, n, m, d and l.
_KEYS = "1234567890abceghijkopqrtvwxyz"

_WORD = re.compile(r"[^\W_]+")


def keyed_labels(
    taxonomy: Taxonomy, keys: Mapping[str, str], scores: Mapping[str, float]
) -> Sequence[tuple[str, Label, str]]:
    """Return the labels with their keys and codes, "" where there is none. ``keys`` are the labels'
    own, by name; the others get theirs in the taxonomy's order, or of many labels by the scores."""
    free = (key for key in _KEYS if key not in keys.values())
    labels: Sequence[Label] = taxonomy.labels
    codes: Mapping[str, str] = {}
    if len(labels) > MANY_LABELS:
        free = (key for key in _KEYS[:10] if key not in keys.values())
        labels = sorted(labels, key=lambda each: -scores.get(each.name, 0.0))
        codes = _codes(taxonomy.names)
    return [
        (keys.get(each.name) or next(free, ""), each, codes.get(each.name, "")) for each in labels
    ]


def wrong_keys(taxonomy: Taxonomy, keys: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the labels' own keys, a sentence each."""
    for name, key in keys.items():
        if name not in taxonomy.names:
            yield f"{name!r} is not a label of {taxonomy.name}"
        if len(key) != 1 or key not in _KEYS:
            yield f"{name!r} cannot have the key {key!r}: give one of {_KEYS}"
        if list(keys.values()).count(key) > 1:
            yield f"{name!r} has the key {key!r}, and so has another label"


@cache
def _codes(names: tuple[str, ...]) -> Mapping[str, str]:
    """Return a code for each label, "" where none is free: the first letters of two of its words,
    else its first letter and another one of its own, else any two of its own."""
    found: dict[str, str] = {}
    for name in names:
        # Without accents, as the page reads what is typed.
        folded = unicodedata.normalize("NFKD", name.lower())
        parts = _WORD.findall("".join(each for each in folded if not unicodedata.combining(each)))
        initials = "".join(word[0] for word in parts)
        letters = "".join(parts)
        pairs = chain(
            combinations(initials, 2),
            product(letters[:1], letters[1:]),
            combinations(letters, 2),
        )
        free = ("".join(pair) for pair in pairs if "".join(pair) not in found.values())
        found[name] = next(free, "")
    return found
