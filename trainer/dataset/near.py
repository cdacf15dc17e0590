"""Messages that say the same in nearly the same words. The only file that imports datasketch.

Similarity is the Jaccard index of the sets of four-character shingles of the words, in lower case
and without punctuation (Broder 1997). MinHash signatures cut into bands find the candidates
(Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), and the exact index
decides: no pair is called near by an estimate. Whether two messages are near depends on these
two alone, so a row more or less changes nothing between the others.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from trainer.dataset.clusters import Clusters

SHINGLE_CHARS = 4
_PERMUTATIONS = 256
_RECALL = 0.999
_SEED = 1
_SHINGLES_AT_ONCE = 4096
_PAIRS_AT_ONCE = 1 << 16
_SMALL_BUCKET = 16
_WORD = re.compile(r"\w+")

Signatures = NDArray[np.uint32]
Compare = Callable[[int, int], bool]


def near_clusters(
    keys: Sequence[str],
    signatures: Signatures,
    *,
    similarity: float,
    tick: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """Group the texts (distinct, case folded) by near-duplicates and their near-duplicates.

    Return groups of indices, singletons too; the groups do not depend on the order of the texts.
    ``signatures`` are those of ``sign``; ``tick`` is told of every band that has been searched
    (there are ``bands(similarity)``). A pair exactly at the threshold is found with a probability
    of 0.999, a closer one more surely.
    """
    clusters = Clusters(len(keys))
    # Four standard deviations of the estimate: what lies below is not worth an exact look.
    floor = similarity - 4 * math.sqrt(similarity * (1 - similarity) / _PERMUTATIONS)

    @lru_cache(maxsize=20_000)
    def pieces(place: int) -> frozenset[str]:
        return shingles(keys[place])

    @lru_cache(maxsize=1_000_000)
    def near(one: int, other: int) -> bool:
        return jaccard(pieces(one), pieces(other)) >= similarity

    rows = rows_per_band(similarity)
    for start in range(0, bands(similarity) * rows, rows):
        small, large = _buckets(signatures[:, start : start + rows])
        for one, other in _likely(small, signatures, floor):
            if clusters.find(one) != clusters.find(other) and near(one, other):
                clusters.join(one, other)
        for bucket in large:
            _search(bucket, signatures, clusters, floor, near)
        tick(1)
    return clusters.groups()


def shingles(key: str) -> frozenset[str]:
    """Return the four-character pieces of a text's words; of the whole text when it has none."""
    words = f" {' '.join(_WORD.findall(key)) or key} "
    count = max(1, len(words) - SHINGLE_CHARS + 1)
    return frozenset(words[start : start + SHINGLE_CHARS] for start in range(count))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the size of the intersection over that of the union, 0 to 1."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def rows_per_band(similarity: float) -> int:
    """Return how many hash values make a band: the most (fewest false candidates) at which a
    pair at the threshold still shares one with a probability of 0.999, 1 - (1 - s^r)^b."""
    return max(
        (
            rows
            for rows in range(1, 33)
            if 1 - (1 - similarity**rows) ** (_PERMUTATIONS // rows) >= _RECALL
        ),
        default=1,
    )


def bands(similarity: float) -> int:
    """Return how many bands a signature is cut into."""
    return _PERMUTATIONS // rows_per_band(similarity)


def sign(keys: Sequence[str], tick: Callable[[int], None] = lambda _: None) -> Signatures:
    """Return the signatures, one row of 256 hash values a text; ``tick`` is told how many more
    are done. The same texts have the same signatures on every machine.

    CRC-32 is enough under datasketch's ``affine32``
    scheme, which mixes it first; a long text goes in by parts, to bound the memory."""
    found = np.empty((len(keys), _PERMUTATIONS), dtype=np.uint32)
    empty = MinHash(num_perm=_PERMUTATIONS, seed=_SEED, hashfunc=zlib.crc32, scheme="affine32")
    for place, key in enumerate(keys):
        sketch = empty.copy()
        pieces = [piece.encode("utf-8", "surrogatepass") for piece in shingles(key)]
        for start in range(0, len(pieces), _SHINGLES_AT_ONCE):
            sketch.update_batch(pieces[start : start + _SHINGLES_AT_ONCE])
        found[place] = sketch.hashvalues
        if place % 256 == 255:
            tick(256)
    tick(len(keys) % 256)
    return found


def _buckets(band: Signatures) -> tuple[NDArray[np.int64], list[list[int]]]:
    """Group the texts by their hash values in one band.

    Return the pairs (n, 2) within the small buckets, and the large buckets, whose pairs would be
    too many to list.
    """
    odd = np.array([2654435761 * (2 * place + 1) for place in range(band.shape[1])], np.uint64)
    # One number a row; two unlike rows on one number are a candidate more, no error.
    value = (band.astype(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
    order = np.argsort(value, kind="stable")
    edges = np.flatnonzero(np.diff(value[order])) + 1
    starts = np.concatenate(([0], edges))
    sizes = np.diff(np.concatenate((starts, [len(value)])))
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for size in range(2, _SMALL_BUCKET + 1):
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        one, other = np.triu_indices(size, 1)
        pairs.append(np.stack((members[:, one].ravel(), members[:, other].ravel()), axis=1))
    large = [
        order[start : start + size].tolist()
        for start, size in zip(starts, sizes, strict=True)
        if size > _SMALL_BUCKET
    ]
    return np.concatenate(pairs), large


def _likely(
    pairs: NDArray[np.int64], signatures: Signatures, floor: float
) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose estimated similarity reaches the floor, smaller place first."""
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        one, other = pairs[start : start + _PAIRS_AT_ONCE].T
        alike = (signatures[one] == signatures[other]).mean(axis=1) >= floor
        yield from zip(
            np.minimum(one, other)[alike].tolist(),
            np.maximum(one, other)[alike].tolist(),
            strict=True,
        )


def _search(
    bucket: Sequence[int], signatures: Signatures, clusters: Clusters, floor: float, near: Compare
) -> None:
    """Join what is near within a large bucket, from one text outwards.

    Among thousands of copies of one template the first text finds all the others, and the pairs
    among these are never looked at.
    """
    left = sorted(bucket)
    while len(left) > 1:
        front = [left.pop(0)]
        while front and left:
            one = front.pop()
            root = clusters.find(one)
            alike = (signatures[left] == signatures[one]).mean(axis=1) >= floor
            stay = []
            for other, likely in zip(left, alike.tolist(), strict=True):
                if clusters.find(other) == root:
                    front.append(other)
                elif likely and near(min(one, other), max(one, other)):
                    clusters.join(one, other)
                    root = clusters.find(one)
                    front.append(other)
                else:
                    stay.append(other)
            left = stay
