"""Messages as sets of hashes, and all pairs of sets that are near each other, found exactly."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from trainer.dataset.near import shingles
from worker.contract.digest import sha256_bytes

Pieces = frozenset[bytes]

_ROUNDING = 1e-9  # 0.07 * 100 is above 7: a pair exactly at the threshold must not be lost


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What can be compared of a message without its text: the digest of its key (see
    ``Example.key``) and the hashes of the key's shingles."""

    key: str
    pieces: Pieces


def fingerprint(key: str) -> Fingerprint:
    """Return a key's fingerprint, over the same shingles as ``prepare`` compares."""
    pieces = frozenset(
        blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for one in shingles(key)
    )
    return Fingerprint(sha256_bytes(key.encode("utf-8", "surrogatepass")), pieces)


def near_pairs(
    left: Sequence[Pieces],
    right: Sequence[Pieces],
    similarity: float,
    *,
    skip: Callable[[int, int], bool] = lambda _one, _other: False,
    most: int | None = None,
) -> Iterator[tuple[int, int, float]]:
    """Yield (place in left, place in right, Jaccard index) of the pairs at or above a similarity.

    Sets that are so near share one of their rarest members: only those are looked up, and no pair
    is missed (prefix filtering; Chaudhuri, Ganti and Kaushik 2006). Pairs that ``skip`` names are
    passed over; at most ``most`` are given for each place in left.
    """
    counts = Counter(piece for pieces in (*left, *right) for piece in pieces)

    def rarest(pieces: Pieces) -> list[bytes]:
        order = sorted(pieces, key=lambda piece: (counts[piece], piece))
        return order[: len(order) - math.ceil(similarity * len(order) - _ROUNDING) + 1]

    places: dict[bytes, list[int]] = defaultdict(list)
    for place, pieces in enumerate(right):
        for piece in rarest(pieces):
            places[piece].append(place)
    for one, pieces in enumerate(left):
        found = 0
        seen: set[int] = set()
        for other in (at for piece in rarest(pieces) for at in places.get(piece, ())):
            if other in seen or skip(one, other):
                continue
            seen.add(other)
            value = _jaccard(pieces, right[other], similarity)
            if value >= similarity:
                found += 1
                yield one, other, value
                if found == most:
                    break


def _jaccard(one: Pieces, other: Pieces, floor: float) -> float:
    if min(len(one), len(other)) < floor * max(len(one), len(other)) - _ROUNDING:
        return 0.0  # their sizes alone rule it out
    common = len(one & other)
    return common / (len(one) + len(other) - common)
