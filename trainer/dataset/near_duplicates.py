"""Messages that say the same in nearly the same words.

Similarity is the Jaccard index of the sets of four-character shingles of the words, in lower case
and without punctuation (Broder 1997). Numbers and redaction marks count as one mark each: two
messages of one form, with another ticket number in it, are the same message to whoever learns.
Whether two messages are near depends on these two alone, so a row more or less changes nothing
between the others.

``near_clusters`` takes its candidates from MinHash (``trainer.dataset.min_hash``) and compares
these exactly: it invents no pair, and how rarely it misses one is said there. ``near_pairs``, on
which proofs rest, misses none: two sets that are near share one of their rarest shingles, so that
only what shares one is looked at (prefix filtering; Chaudhuri, Ganti and Kaushik 2006), and the
place of the rarest that they share rules out most of the rest (positional filtering; Xiao, Wang,
Lin and Yu 2008).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.dataset.min_hash import SHINGLE_CHARS, Candidates
from trainer.dataset.names import NAME
from worker.contract.redact import PLACEHOLDERS

LEAST_OF_A_TEMPLATE = 3
"""So many different messages that are equal but for numbers and marks are called a template."""

_MARK = re.compile("|".join(re.escape(mark) for mark in (*PLACEHOLDERS.values(), NAME)))
_WORD = re.compile(r"\w+")
# Words with a digit in them, and several in a row as one: dates, amounts and phone numbers are
# written in groups. Possessive, so that a word of 60,000 letters is walked once.
_NUMBERS = re.compile(r"\b[^\W\d]*+\d\w*+(?: [^\W\d]*+\d\w*+)*+")
_ROUNDING = 1e-9  # 0.07 * 100 is above 7: a pair exactly at the threshold must not be lost
_SIZE_BITS = 32
_SETS_KEPT = 256  # of some 40 KB each

ShingleSet = frozenset[Any]
"""A message's shingles, or what stands for them: all strings, or all digests."""

Ranks = NDArray[np.int64]
"""A set of shingles as their ranks in rising order, 0 the rarest of all."""


def mask(key: str) -> str:
    """Return a text's words, one blank around each, with ``0`` for numbers and redaction marks;
    the whole text when it has no words. Messages of one form are equal then."""
    words = " ".join(_WORD.findall(_MARK.sub(" 0 ", key)))
    return f" {_NUMBERS.sub('0', words) or key} "


def shingles(key: str) -> frozenset[str]:
    """Return the four-character shingles of a text as ``mask`` leaves it."""
    words = mask(key)
    if len(words) < SHINGLE_CHARS:
        return frozenset([words])
    return frozenset(map("".join, zip(*(words[at:] for at in range(SHINGLE_CHARS)), strict=False)))


def jaccard(left: ShingleSet, right: ShingleSet) -> float:
    """Return the size of the intersection over that of the union, 0 to 1."""
    common = len(left & right)
    return common / (len(left) + len(right) - common)


@dataclass(frozen=True, slots=True)
class NearGroups:
    """``clusters`` of near-duplicates and their near-duplicates, singletons too, and ``templates``:
    the messages that are equal but for numbers and marks, where there are ``LEAST_OF_A_TEMPLATE``
    or more. Both of indices, by their smallest member, members in order."""

    clusters: list[list[int]]
    templates: list[list[int]]


def group_near(
    count: int,
    key_of: Callable[[int], str],
    *,
    similarity: float,
    tick: Callable[[int], None] = lambda _: None,
) -> NearGroups:
    """Group so many texts (distinct, case folded), which ``key_of`` gives by their numbers. The
    groups do not depend on their order. ``tick`` is called for every text that is done.

    Of texts that are equal when masked one stands for all. Texts are asked for one by one, and
    again where two are compared: they need not be in memory together.
    """
    digests = np.empty(count, dtype=np.uint64)
    for place in range(count):
        digests[place] = _digest(mask(key_of(place)))
        tick(1)
    _, firsts, number = np.unique(digests, return_index=True, return_inverse=True)
    sets = lru_cache(_SETS_KEPT)(lambda at: shingles(key_of(int(firsts[at]))))
    with Candidates(len(firsts), similarity) as candidates:
        for place in firsts.tolist():
            candidates.add(mask(key_of(place)))
        clusters = candidates.unite(
            lambda left, right: jaccard(sets(left), sets(right)) >= similarity
        )
    same: dict[int, list[int]] = defaultdict(list)
    counts = np.bincount(number)
    for place in np.flatnonzero(counts[number] >= LEAST_OF_A_TEMPLATE).tolist():
        same[int(number[place])].append(place)
    return NearGroups(_members(clusters[number]), list(same.values()))


def near_clusters(
    keys: Sequence[str], *, similarity: float, tick: Callable[[int], None] = lambda _: None
) -> list[list[int]]:
    """Return the clusters of ``group_near`` alone."""
    return group_near(len(keys), keys.__getitem__, similarity=similarity, tick=tick).clusters


def _digest(text: str) -> int:
    """Return 64 bits: two of a million unlike texts share them in 1 of 40 million exports."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _members(labels: NDArray[np.int64]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(place)
    return list(groups.values())


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
    ranked = _rank([*left, *right])
    index = _PrefixIndex(ranked[len(left) :], similarity)
    for place, wanted in enumerate(ranked[: len(left)]):
        for other, value in islice(index.near(wanted, partial(skip, place)), most):
            yield place, other, value


def _rank(sets: Sequence[ShingleSet]) -> list[Ranks]:
    if not sets:
        return []  # np.split would make one of nothing
    in_order = sorted(set().union(*sets))
    number = {shingle: at for at, shingle in enumerate(in_order)}
    flat = np.fromiter(map(number.__getitem__, chain.from_iterable(sets)), dtype=np.int64)
    counts = np.bincount(flat, minlength=len(number))
    rank = np.empty(len(number), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(number))
    sizes = np.array([len(members) for members in sets], dtype=np.int64)
    # Sorted by set, then by rank: all sets in one go.
    owners = np.repeat(np.arange(len(sets)), sizes) << _SIZE_BITS
    ordered = np.sort(owners + rank[flat]) - owners
    return np.split(ordered, np.cumsum(sizes)[:-1])


class _PrefixIndex:
    """Sets of shingles, each to be found by any member of its prefix: its rarest members, enough
    that any set near to it shares one of them.

    Everything is in flat arrays, so that a search is a few operations on arrays, not on members.
    An entry is one member of one prefix. Entries are in the order of their keys, the member's rank
    above the set's size, so that the sets of like size with one member are a stretch of them.
    """

    def __init__(self, sets: Sequence[Ranks], similarity: float) -> None:
        self._similarity = similarity
        self._sizes = np.array([len(members) for members in sets], dtype=np.int64)
        self._members = np.concatenate([*sets, np.empty(0, dtype=np.int64)])
        self._starts = np.cumsum(self._sizes) - self._sizes
        # Which ranks the wanted set has; a rank that only other sets have is never asked for.
        self._wanted = np.zeros(int(self._members.max(initial=-1)) + 2, dtype=np.bool_)
        prefixes = [_prefix_size(len(members), similarity) for members in sets]
        lengths = np.array(prefixes, dtype=np.int64)
        places = np.repeat(np.arange(len(sets)), lengths)
        at = _stretches(np.zeros_like(lengths), lengths)
        keys = _key(self._members[self._starts[places] + at], self._sizes[places])
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], places[order]
        self._reach = self._largest_partner(self._sizes[places], at)[order]

    def near(
        self, wanted: Ranks, skip: Callable[[int], bool] = lambda _: False
    ) -> Iterator[tuple[int, float]]:
        """Yield (place, Jaccard index) of the sets that are near; those that share the rarest
        shingles of ``wanted`` come first, and those that ``skip`` names not at all."""
        candidates, shared_at = self._candidates(wanted)
        if not len(candidates):
            return
        common = self._count_common(wanted, candidates)
        values = common / (len(wanted) + self._sizes[candidates] - common)
        near = np.flatnonzero(values >= self._similarity)
        for found in near[np.lexsort((candidates[near], shared_at[near]))].tolist():
            place = int(candidates[found])
            if not skip(place):
                yield place, float(values[found])

    def _candidates(self, wanted: Ranks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places that may be near, and for each where in ``wanted`` the rarest member
        that both have stands."""
        size = len(wanted)
        at = np.arange(_prefix_size(size, self._similarity))
        prefix = wanted[: len(at)]
        least = math.ceil(self._similarity * size - _ROUNDING)
        most = self._largest_partner(np.full_like(at, size), at)
        starts = np.searchsorted(self._keys, _key(prefix, np.full_like(at, least)), "left")
        ends = np.searchsorted(self._keys, _key(prefix, most), "right")
        lengths = np.maximum(ends - starts, 0)
        entries = _stretches(starts, lengths)
        places = self._places[entries]
        kept = np.flatnonzero(self._reach[entries] >= size)
        candidates, first = np.unique(places[kept], return_index=True)
        return candidates, np.repeat(at, lengths)[kept[first]]

    def _count_common(self, wanted: Ranks, places: NDArray[np.int64]) -> NDArray[np.int64]:
        known = wanted[: np.searchsorted(wanted, len(self._wanted))]
        self._wanted[known] = True
        sizes = self._sizes[places]
        members = self._members[_stretches(self._starts[places], sizes)]
        common = np.add.reduceat(self._wanted[members], np.cumsum(sizes) - sizes, dtype=np.int64)
        self._wanted[known] = False
        return common

    def _largest_partner(
        self, sizes: NDArray[np.int64], at: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return up to which size a set can be near to one of ``sizes`` members when the rarest
        that both have stands at ``at`` there: only what is behind it can be common as well."""
        share = self._similarity / (1 + self._similarity)
        largest = np.floor((sizes - at + _ROUNDING) / share - sizes + _ROUNDING)
        bounded: NDArray[np.int64] = np.maximum(largest, 0).astype(np.int64)
        return bounded


def _prefix_size(size: int, similarity: float) -> int:
    return size - math.ceil(similarity * size - _ROUNDING) + 1


def _key(ranks: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return (ranks << _SIZE_BITS) + sizes


def _stretches(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers from each start on, as many as its length says, one after another."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
