"""Messages that say the same in nearly the same words, found exactly.

Similarity is the Jaccard index of the sets of four-character shingles of the words, in lower case
and without punctuation (Broder 1997). Whether two messages are near depends on these two alone, so
a row more or less changes nothing between the others.

Comparing every pair is not needed: two sets that are near share one of their rarest shingles, so
that only what shares one is looked at (prefix filtering; Chaudhuri, Ganti and Kaushik 2006), and
how many of these they share rules out most of the rest (Xiao, Wang, Lin and Yu 2008). No pair is
missed and none is invented.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

SHINGLE_CHARS = 4
_WORD = re.compile(r"\w+")
_ROUNDING = 1e-9  # 0.07 * 100 is above 7: a pair exactly at the threshold must not be lost

ShingleSet = frozenset[Any]
"""A message's shingles, or what stands for them: all strings, or all digests."""


def shingles(key: str) -> frozenset[str]:
    """Return the four-character shingles of a text's words; of the whole text when it has none."""
    words = f" {' '.join(_WORD.findall(key)) or key} "
    count = max(1, len(words) - SHINGLE_CHARS + 1)
    return frozenset(words[start : start + SHINGLE_CHARS] for start in range(count))


def jaccard(left: ShingleSet, right: ShingleSet) -> float:
    """Return the size of the intersection over that of the union, 0 to 1."""
    common = len(left & right)
    return common / (len(left) + len(right) - common)


def near_clusters(
    keys: Sequence[str], *, similarity: float, tick: Callable[[int], None] = lambda _: None
) -> list[list[int]]:
    """Group the texts (distinct, case folded) by near-duplicates and their near-duplicates.

    Return groups of indices, singletons too: by their smallest member, members in order. The
    groups do not depend on the order of the texts. ``tick`` is called for every text that is done.

    A cluster is walked from one text outwards, and what has been reached is looked at no more:
    among thousands of copies of a template the first finds all the others, and the pairs among
    these are never compared.
    """
    ranked = _rank([shingles(key) for key in keys], similarity)
    index = _PrefixIndex(ranked, similarity)
    groups = []
    for start in range(len(keys)):
        if index.is_removed(start):
            continue
        index.remove(start)
        cluster = [start]
        for member in cluster:  # grows meanwhile
            reached = [place for place, _ in index.near(ranked[member])]
            for place in reached:
                index.remove(place)
            cluster += reached
            tick(1)
        groups.append(sorted(cluster))
    return groups


def near_pairs(
    left: Sequence[ShingleSet],
    right: Sequence[ShingleSet],
    similarity: float,
    *,
    skip: Callable[[int, int], bool] = lambda _left, _right: False,
    most: int | None = None,
) -> Iterator[tuple[int, int, float]]:
    """Yield (place in left, place in right, Jaccard index) of the pairs at or above a similarity.

    Pairs that ``skip`` names are passed over; at most ``most`` are given for each place in left,
    those that share its rarest shingles first.
    """
    ranked = _rank([*left, *right], similarity)
    index = _PrefixIndex(ranked[len(left) :], similarity)
    for place, wanted in enumerate(ranked[: len(left)]):
        for other, value in islice(index.near(wanted, partial(skip, place)), most):
            yield place, other, value


@dataclass(frozen=True, slots=True)
class _RankedSet:
    """A set of shingles as their ranks, 0 the rarest of all. ``prefix`` holds its rarest members
    in order, enough that any set near to this one shares one of them; ``rest`` counts the
    others."""

    members: frozenset[int]
    prefix: list[int]
    rest: int


def _rank(sets: Sequence[ShingleSet], similarity: float) -> list[_RankedSet]:
    counts = Counter(shingle for members in sets for shingle in members)
    order = sorted(counts, key=lambda shingle: (counts[shingle], shingle))
    rank = {shingle: place for place, shingle in enumerate(order)}
    ranked = []
    for shingle_set in sets:
        members = sorted(rank[shingle] for shingle in shingle_set)
        rest = math.ceil(similarity * len(members) - _ROUNDING) - 1
        ranked.append(_RankedSet(frozenset(members), members[: len(members) - rest], rest))
    return ranked


class _PrefixIndex:
    """Sets of shingles, each to be found by any member of its prefix."""

    __slots__ = ("_places", "_removed", "_sets", "_similarity", "_sizes")

    def __init__(self, sets: Sequence[_RankedSet], similarity: float) -> None:
        self._sets = sets
        self._sizes = [len(indexed.members) for indexed in sets]
        self._similarity = similarity
        self._removed: set[int] = set()
        self._places: dict[int, list[int]] = defaultdict(list)
        for place, indexed in enumerate(sets):
            for rank in indexed.prefix:
                self._places[rank].append(place)

    def is_removed(self, place: int) -> bool:
        """Tell whether the set at ``place`` is found no more."""
        return place in self._removed

    def remove(self, place: int) -> None:
        """Let the set at ``place`` be found no more."""
        self._removed.add(place)

    def near(
        self, wanted: _RankedSet, skip: Callable[[int], bool] = lambda _: False
    ) -> Iterator[tuple[int, float]]:
        """Yield (place, Jaccard index) of the sets that are near; those that share the rarest
        shingles of ``wanted`` come first, and those that ``skip`` names not at all."""
        in_prefixes: Counter[int] = Counter()
        for rank in wanted.prefix:
            in_prefixes.update(self._places_of(rank))
        share = self._similarity / (1 + self._similarity)
        size, last = len(wanted.members), wanted.prefix[-1]
        for place, common in in_prefixes.items():
            # So many must be common for a Jaccard index of ``similarity``.
            needed = share * (size + self._sizes[place]) - _ROUNDING
            if size < needed or self._sizes[place] < needed:
                continue
            found = self._sets[place]
            # What is common up to the end of the prefix that ends first stands in both prefixes;
            # beyond it that set has only its rest.
            rest = wanted.rest if last <= found.prefix[-1] else found.rest
            if common + rest < needed or skip(place):
                continue
            value = jaccard(wanted.members, found.members)
            if value >= self._similarity:
                yield place, value

    def _places_of(self, rank: int) -> list[int]:
        places = self._places.get(rank, [])
        if self._removed:
            left = [place for place in places if place not in self._removed]
            if len(left) < len(places):
                self._places[rank] = places = left
        return places
