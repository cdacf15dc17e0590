"""Near-duplicates: messages that say the same in nearly the same words.

Similarity is the Jaccard index of the sets of four-character shingles of the words, in lower case
and without punctuation (Broder 1997). All numbers and redaction marks are the same mark: two copies
of a form with different ticket numbers are the same message to a model. Whether two messages are
near depends on these two only, so adding a row changes nothing between the others; but a passage
that recurs in many messages (a form's footer, a quotation) counts for nothing: with it, all short
messages above one footer would be near.

There are two searches. ``near_clusters`` groups a whole export in bounded memory: MinHash proposes
candidates (``Candidates`` has the rate of missed pairs), which are compared exactly. ``near_pairs``
compares two sets of messages and misses nothing, since proofs rest on it. It accepts fingerprints
instead of texts, so that the sealed hold-out need not be opened. It is not used for both, because
its arrays of all shingles grow with the export. An inverted index of all shingles took three times
as long on 4,000 messages.

Two sets that are near share one of their rarest shingles, so ``near_pairs`` compares only sets that
share one (prefix filtering; Chaudhuri, Ganti and Kaushik 2006).
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice, pairwise
from typing import Any
from zlib import crc32

import numpy as np
import scipy
from numpy.typing import NDArray

from trainer.artifacts.evaluation import DisjointProof
from trainer.dataset.clean import canonical, cleaning_of
from trainer.dataset.folder import Dataset, Example
from trainer.dataset.names import NAME
from trainer.errors import BadInput
from trainer.progress import track
from trainer.similarity import SIMILARITY
from worker.contract.redact import PLACEHOLDERS, redact_personal_data

LEAST_OF_A_TEMPLATE = 3
"""The fewest messages, equal except for numbers and marks, that are called a template."""

_MARK = re.compile("|".join(re.escape(mark) for mark in (*PLACEHOLDERS.values(), NAME)))
_WORD = re.compile(r"\w+")
# One or several words in a row with a digit in them: dates, amounts and phone numbers are written
# in groups. Possessive quantifiers, so that a word of 60,000 letters is scanned once.
_NUMBERS = re.compile(r"\b[^\W\d]*+\d\w*+(?: [^\W\d]*+\d\w*+)*+")
_ROUNDING = 1e-9  # 0.07 * 100 is above 7: a pair exactly at the threshold must not be lost
_SETS_KEPT = 256  # about 40 KB each

ShingleSet = frozenset[Any]
"""A message's shingles: all strings, or all digests."""

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]


def mask(key: str) -> str:
    """Return a text's words, separated by spaces, with ``0`` for numbers and redaction marks, so
    that copies of a form are equal. A text without words is returned whole."""
    words = " ".join(_WORD.findall(_MARK.sub(" 0 ", key)))
    return f" {_NUMBERS.sub('0', words) or key} "


Passages = frozenset[int]
"""Digests of each ``_PASSAGE_WORDS`` consecutive words that recur in many messages; those of the
widespread ones a second time, with ``_WIDE``."""

_PASSAGE_WORDS = 12  # 70 characters: a shorter passage hardly makes different messages near
_LEAST_OF_A_PASSAGE = 20
_WIDE, _WIDE_SHARE = 1 << 32, 0.05  # a footer, rather than a form's own text
_OWN_WORDS = 4  # shorter gaps fill a form, and those that share a form are near
_SLOTS = 1 << 24
_GRAMS_AT_ONCE = 1 << 20
_NONE: Passages = frozenset()

_FORM_WORDS, _FILLED_WORDS = 12, 4
"""Two messages are one form, filled in differently, if they share so many words and each has at
most so many others: a name and a product. On ten thousand bank support messages that links 87 more
and makes no cluster larger; with fewer words in common there are chains of hundreds."""


class _Recurring:
    """Finds the passages of many masked texts in bounded memory: ``add`` each, then ``find``."""

    def __init__(self) -> None:
        # One byte for each slot: collisions of rare passages stay far below the limit.
        self._slots = np.zeros(_SLOTS, dtype=np.uint8)
        self._waiting: list[U64] = []
        self._size = 0

    def add(self, masked: str) -> None:
        grams = _grams(masked)
        self._waiting.append(grams)
        self._size += len(grams)
        if self._size >= _GRAMS_AT_ONCE:
            self._count()

    def find(self, texts: Iterable[str]) -> Passages:
        """Return what recurs in ``texts``: those that were added, each once."""
        self._count()
        often = self._slots >= _LEAST_OF_A_PASSAGE
        if not often.any():
            return _NONE
        found: Counter[int] = Counter()
        number = 0
        for masked in texts:
            number += 1
            grams = _grams(masked)
            found.update(set(grams[often[grams % _SLOTS]].tolist()))
        passages = {gram for gram, count in found.items() if count >= _LEAST_OF_A_PASSAGE}
        wide = {gram | _WIDE for gram in passages if found[gram] >= _WIDE_SHARE * number}
        return frozenset(passages | wide)

    def _count(self) -> None:
        if self._waiting:
            grams = np.concatenate(self._waiting)
            at, counts = np.unique(grams % _SLOTS, return_counts=True)
            self._slots[at] = np.minimum(255, self._slots[at] + counts)
        self._waiting, self._size = [], 0


_POWERS = np.array([pow(0x9E3779B97F4A7C15, at, 1 << 64) for at in range(_PASSAGE_WORDS)],
                   dtype=np.uint64)  # fmt: skip


def _grams(masked: str) -> U64:
    """Return 32 bits for each run of ``_PASSAGE_WORDS`` words, in order."""
    words = masked.encode("utf-8", "surrogatepass").split()
    if len(words) < _PASSAGE_WORDS:
        return np.empty(0, dtype=np.uint64)
    hashed = np.fromiter(map(crc32, words), dtype=np.uint64, count=len(words))
    return np.correlate(hashed, _POWERS, "valid") >> np.uint64(32)


def cut(masked: str, passages: Passages) -> str:
    """Return a masked text without passages; if nothing of its own is left, as in a form, without
    the widespread ones, and if then nothing is left, the whole text."""
    grams = _grams(masked).tolist() if passages else []
    known = [at for at, gram in enumerate(grams) if gram in passages]
    if not known:
        return masked
    return _without(masked, known) or (
        _without(masked, [at for at in known if grams[at] | _WIDE in passages]) or masked
    )


def _without(masked: str, known: Sequence[int]) -> str:
    """Return the text without the passages that begin at these words; empty if that leaves no
    ``_OWN_WORDS`` in a row."""
    words = masked.split()
    own = np.ones(len(words), dtype=np.bool_)
    for at in known:
        own[at : at + _PASSAGE_WORDS] = False
    edges = np.flatnonzero(np.diff(np.r_[False, own, False].astype(np.int8)))
    if not known or not len(edges) or (edges[1::2] - edges[::2]).max() < _OWN_WORDS:
        return ""
    return f" {' '.join(word for word, kept in zip(words, own.tolist(), strict=True) if kept)} "


def shingles(key: str, passages: Passages = _NONE) -> frozenset[str]:
    """Return the four-character shingles of the masked text without ``passages``."""
    words = cut(mask(key), passages)
    if len(words) < SHINGLE_CHARS:
        return frozenset([words])
    return frozenset(map("".join, zip(*(words[at:] for at in range(SHINGLE_CHARS)), strict=False)))


def is_one_form(left: Sequence[str], right: Sequence[str]) -> bool:
    """Return whether two messages, as masked words, are the same form with other words in it."""
    longer, shorter = max(len(left), len(right)), min(len(left), len(right))
    if shorter < _FORM_WORDS or longer - shorter > _FILLED_WORDS:
        return False
    common = (Counter(left) & Counter(right)).total()
    return common >= max(_FORM_WORDS, longer - _FILLED_WORDS)


def jaccard(left: ShingleSet, right: ShingleSet) -> float:
    """Return the size of the intersection over that of the union, 0 to 1."""
    common = len(left & right)
    return common / (len(left) + len(right) - common)


@dataclass(frozen=True, slots=True)
class NearGroups:
    """``clusters`` of messages linked by chains of near-duplicates, singletons included, and
    ``templates``: ``LEAST_OF_A_TEMPLATE`` or more messages that are equal except for numbers and
    marks. Both hold sorted indices, and are sorted by their first. ``passages`` counted for
    nothing; ``footed`` are the first messages that have one and words of their own, and
    ``footed_count`` is their number."""

    clusters: list[list[int]]
    templates: list[list[int]]
    passages: Passages = _NONE
    footed: tuple[int, ...] = ()
    footed_count: int = 0


def group_near(
    count: int,
    key_of: Callable[[int], str],
    *,
    similarity: float,
    passages: Passages | None = None,
) -> NearGroups:
    """Group ``count`` texts (distinct, case folded), which ``key_of`` returns by index. The groups
    do not depend on the order of texts. ``passages``: those of the same messages, if they are
    known."""
    # Texts are requested one by one, and again when two are compared, so that a caller need not
    # hold them all in memory. One of several texts that are equal when masked stands for all.
    digests = np.empty(count, dtype=np.uint64)
    recurring = _Recurring()
    for place in track("reading", range(count)):
        masked = mask(key_of(place))
        digests[place] = _digest(masked)
        if passages is None:
            recurring.add(masked)
    _, firsts, number = np.unique(digests, return_index=True, return_inverse=True)
    if passages is None:
        passages = recurring.find(mask(key_of(place)) for place in firsts.tolist())
    known = passages
    sets = lru_cache(_SETS_KEPT)(lambda at: shingles(key_of(int(firsts[at])), known))
    words = lru_cache(_SETS_KEPT)(lambda at: cut(mask(key_of(int(firsts[at]))), known).split())
    footed = np.zeros(len(firsts), dtype=np.bool_)
    with closing(Candidates(len(firsts), similarity)) as candidates:
        for at, place in enumerate(track("comparing", firsts.tolist())):
            masked = mask(key_of(place))
            own = cut(masked, passages)
            footed[at] = own is not masked
            candidates.add(own)
        # Forms of half the similarity are among the candidates: the sketches are that coarse.
        clusters = candidates.unite(
            lambda left, right: (
                is_one_form(words(left), words(right))
                or jaccard(sets(left), sets(right)) >= similarity
            )
        )
    same: dict[int, list[int]] = defaultdict(list)
    counts = np.bincount(number)
    with_passage = np.flatnonzero(footed[number])
    for place in np.flatnonzero(counts[number] >= LEAST_OF_A_TEMPLATE).tolist():
        same[int(number[place])].append(place)
    return NearGroups(
        _members(clusters[number]),
        list(same.values()),
        passages,
        tuple(with_passage[:_FOOTED_NAMED].tolist()),
        len(with_passage),
    )


_FOOTED_NAMED = 3


def near_clusters(keys: Sequence[str], *, similarity: float) -> list[list[int]]:
    """Return the clusters of ``group_near`` alone."""
    return group_near(len(keys), keys.__getitem__, similarity=similarity).clusters


def _digest(text: str) -> int:
    """Return 64 bits: a million different texts collide in 1 of 40 million exports."""
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
    """Yield (index in left, index in right, Jaccard index) of the pairs at or above a similarity.

    Pairs for which ``skip`` is true are left out. At most ``most`` pairs are yielded for each index
    in left, the nearest first.
    """
    if not left or not right:
        return
    ranked = _incidence([*left, *right])
    known = ranked[len(left) :]
    sizes = np.diff(known.indptr)
    prefixes = _prefixes(known, similarity)
    wanted = np.zeros(ranked.shape[1])
    for place, (start, end) in enumerate(pairwise(ranked.indptr[: len(left) + 1].tolist())):
        members, size = ranked.indices[start:end], end - start
        others = np.unique(prefixes[:, members[: _prefix_size(size, similarity)]].indices)
        wanted[members] = 1
        common = known[others] @ wanted
        wanted[members] = 0
        values = common / (size + sizes[others] - common)
        near = np.flatnonzero(values >= similarity)
        found = (
            (place, int(others[at]), float(values[at]))
            for at in near[np.argsort(-values[near], kind="stable")]
        )
        yield from islice((pair for pair in found if not skip(*pair[:2])), most)


def _incidence(sets: Sequence[ShingleSet]) -> Any:
    """Return the sets as a sparse matrix, (sets, shingles); the rarest shingle is the first."""
    number = {shingle: at for at, shingle in enumerate(set().union(*sets))}
    flat = np.fromiter(map(number.__getitem__, chain.from_iterable(sets)), dtype=np.int64)
    rank = np.empty(len(number), dtype=np.int64)
    rank[np.argsort(np.bincount(flat), kind="stable")] = np.arange(len(number))
    starts = np.cumsum([0, *map(len, sets)])
    shape = len(sets), len(number)
    found = scipy.sparse.csr_array((np.ones(len(flat)), rank[flat], starts), shape=shape)
    found.sort_indices()
    return found


def _prefixes(sets: Any, similarity: float) -> Any:
    """Return the rarest shingles of each set, by column: so many that any set near to it has one of
    them."""
    sizes = np.diff(sets.indptr)
    lengths = np.array([_prefix_size(size, similarity) for size in sizes.tolist()])
    at = _ranges(sets.indptr[:-1], lengths)
    starts = np.cumsum([0, *lengths])
    return scipy.sparse.csr_array(
        (sets.data[at], sets.indices[at], starts), shape=sets.shape
    ).tocsc()


def _prefix_size(size: int, similarity: float) -> int:
    return size - math.ceil(similarity * size - _ROUNDING) + 1


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """Concatenate ``range(start, start + length)`` of each pair."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


SHINGLE_CHARS = 4
BANDS = 64
MISSED = 1e-3
"""The largest probability of missing a pair that is just at the threshold."""

_SKETCH_BYTES = 128
_DEVIATIONS = 5  # a pair whose sketch is further below the threshold is skipped: 3 in 10^7 wrongly
_CHUNK_CHARS = 1 << 16  # arrays of this many shingles stay in a core's cache
_SMALL_RUN = 64
_HELD_BYTES = 1 << 25  # of bands in memory, 256 bytes a text; beyond it they go to the disk
_PAIRS_AT_ONCE = 1 << 15
# (most texts, hashes in a band): Candidates has the rates of missed pairs.
_LADDER = ((1 << 14, 3), (1 << 17, 4), (1 << 19, 5))
_LONGEST_BAND = 6


def hashes_in_a_band(texts: int, similarity: float) -> int:
    """Return the number of hashes in a band: more for more texts, bounded by ``MISSED``."""
    wanted = next((hashes for most, hashes in _LADDER if texts <= most), _LONGEST_BAND)
    while wanted > 1 and (1 - similarity**wanted) ** BANDS > MISSED:
        wanted -= 1
    return wanted


class Candidates:
    """Find pairs of near texts by MinHash. Add at most ``most`` texts, then call ``unite``.

    Two sets of shingles have the same smallest hash with a probability equal to their Jaccard index
    (Broder 1997). Two texts are candidates if all hashes of one of ``BANDS`` bands agree (Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, 3.4). A pair at similarity s is missed with
    probability (1 - s^r)^BANDS for bands of r hashes. For s = 0.7 that is 2 in 10^12 up to 16,000
    texts (r = 3), 2 in 10^8 up to 128,000 (r = 4), 7 in 10^6 up to 512,000 (r = 5), and 3 in 10^4
    beyond (r = 6); for more similar pairs it is far less. More texts need longer bands, or the
    number of candidates that are not near grows with the square of the texts.

    128 bytes are kept in memory for each text, the low bytes of some of its hashes: they rule out
    most candidates before any shingles are compared. The bands are in a temporary file.
    """

    def __init__(self, most: int, similarity: float) -> None:
        self._similarity = similarity
        self._most = most
        self._hashes = hashes_in_a_band(most, similarity)
        count = BANDS * self._hashes
        random = np.random.default_rng(0)  # a fixed seed: a dataset's digest depends on it
        self._flips = random.integers(1 << 32, size=count, dtype=np.uint32)
        # Odd factors: only these make multiplication a permutation of 32-bit numbers.
        self._factors = random.integers(1 << 32, size=count, dtype=np.uint32) | np.uint32(1)
        self._sketches = np.empty((most, min(_SKETCH_BYTES, count)), dtype=np.uint8)
        self._added = 0
        self._waiting: list[str] = []
        self._waiting_chars = 0
        # Pairs (smaller * most + larger) that are not near: of earlier bands, sorted, and of this.
        self._apart = np.array([-1])
        self._found_apart: set[int] = set()
        self._file = tempfile.SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115 (see close)

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()

    def add(self, text: str) -> None:
        """Add a masked text."""
        # Padded, so that a text shorter than a shingle has one.
        self._waiting.append(text.ljust(SHINGLE_CHARS, "\0"))
        self._waiting_chars += len(text)
        if self._waiting_chars >= _CHUNK_CHARS:
            self._flush()

    def unite(self, is_near: Callable[[int, int], bool]) -> Ints:
        """Return the cluster of each text, named by its smallest index: texts linked by a chain of
        near pairs. ``is_near`` compares two texts by index."""
        self._flush()
        clusters = _Clusters(self._added)
        for band in range(BANDS):
            values = self._read(band)
            order = np.argsort(values, kind="stable")
            ordered = values[order]
            starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
            lengths = np.diff(np.r_[starts, len(ordered)])
            self._compare_small(order, starts, lengths, clusters, is_near)
            for at in np.flatnonzero(lengths > _SMALL_RUN):
                run = order[starts[at] : starts[at] + lengths[at]]
                self._compare_large(run, clusters, is_near)
            self._apart = np.union1d(self._apart, np.array([*self._found_apart], dtype=np.int64))
            self._found_apart.clear()
        return clusters.roots()

    def _flush(self) -> None:
        if not self._waiting:
            return
        smallest = self._smallest_hashes(self._waiting)
        start, count = self._added, len(self._waiting)
        self._sketches[start : start + count] = smallest[: self._sketches.shape[1]].T  # low bytes
        for band in range(BANDS):
            mixed = np.zeros(count, dtype=np.uint64)
            for row in smallest[band * self._hashes : (band + 1) * self._hashes]:
                mixed = _mix(mixed + row)
            # 32 bits are enough: a collision only makes two texts candidates, which are then
            # compared.
            data = (mixed >> np.uint64(32)).astype(np.uint32).tobytes()
            # Arranged by band, because ``unite`` reads one band of all texts at a time.
            self._write(4 * (band * self._most + start), data)
        self._added += count
        self._waiting, self._waiting_chars = [], 0

    def _smallest_hashes(self, texts: list[str]) -> U32:
        """Return the smallest hash of each text's shingles, by hash function: (hashes, texts)."""
        data = "".join(texts).encode("utf-32-le", "surrogatepass")
        chars = np.frombuffer(data, dtype=np.uint32).astype(np.uint64)
        sizes = np.array([len(text) for text in texts])
        runs = len(chars) - SHINGLE_CHARS + 1
        packed = np.zeros(runs, dtype=np.uint64)
        for at in range(SHINGLE_CHARS):
            packed = _mix(packed + chars[at : at + runs])
        # Leave out runs of characters that begin in one text and end in the next.
        ends = np.cumsum(sizes)
        inside = np.ones(len(chars), dtype=np.bool_)
        for back in range(1, SHINGLE_CHARS):
            inside[ends - back] = False
        hashed = (packed[inside[:runs]] >> np.uint64(32)).astype(np.uint32)
        kept = sizes - SHINGLE_CHARS + 1
        starts = np.cumsum(kept) - kept
        smallest = np.empty((len(self._flips), len(texts)), dtype=np.uint32)
        work = np.empty_like(hashed)
        for at, (flip, factor) in enumerate(zip(self._flips, self._factors, strict=True)):
            np.bitwise_xor(hashed, flip, out=work)
            np.multiply(work, factor, out=work)
            np.minimum.reduceat(work, starts, out=smallest[at])
        return smallest

    def _write(self, place: int, data: bytes) -> None:
        try:
            self._file.seek(place)
            self._file.write(data)
        except OSError as error:
            raise BadInput(
                f"{tempfile.gettempdir()}: {error.strerror}: comparing messages needs 256 bytes of "
                "temporary space for each; nothing was written; free some, or set TMPDIR"
            ) from error

    def _read(self, band: int) -> U32:
        self._file.seek(4 * band * self._most)
        return np.frombuffer(self._file.read(4 * self._added), dtype=np.uint32)

    def _compare_small(
        self,
        order: Ints,
        starts: Ints,
        lengths: Ints,
        clusters: _Clusters,
        is_near: Callable[[int, int], bool],
    ) -> None:
        """Compare all pairs within short runs: each member with the next, then with the one after
        that, and so on. Pairs that an earlier step united are skipped."""
        few = (lengths > 1) & (lengths <= _SMALL_RUN)
        starts, lengths = starts[few], lengths[few]
        for step in range(1, int(lengths.max(initial=0))):
            longer = lengths > step
            starts, lengths = starts[longer], lengths[longer]
            at = _ranges(starts, lengths - step)
            self._compare(order[at], order[at + step], clusters, is_near)

    def _compare_large(
        self, run: Ints, clusters: _Clusters, is_near: Callable[[int, int], bool]
    ) -> None:
        """Compare all pairs of a long run that are not in one cluster."""
        # Comparing the first member with all others unites thousands of near-copies in linear time.
        self._compare(np.full(len(run) - 1, run[0]), run[1:], clusters, is_near)
        roots = clusters.roots()[run]
        names, counts = np.unique(roots, return_counts=True)
        for member in run[roots != names[counts.argmax()]]:
            self._compare(np.full(len(run), member), run, clusters, is_near)

    def _compare(
        self,
        left: Ints,
        right: Ints,
        clusters: _Clusters,
        is_near: Callable[[int, int], bool],
    ) -> None:
        roots = clusters.roots()
        apart = roots[left] != roots[right]
        left, right = left[apart], right[apart]
        size = self._sketches.shape[1]
        spread = np.sqrt(self._similarity * (1 - self._similarity) / size)
        least = (self._similarity - _DEVIATIONS * spread) * size
        for start in range(0, len(left), _PAIRS_AT_ONCE):
            some = left[start : start + _PAIRS_AT_ONCE]
            others = right[start : start + _PAIRS_AT_ONCE]
            equal = (self._sketches[some] == self._sketches[others]).sum(axis=1)
            likely = equal >= least
            pairs = np.minimum(some, others)[likely] * self._most + np.maximum(some, others)[likely]
            if not len(pairs):
                continue
            at = np.minimum(np.searchsorted(self._apart, pairs), len(self._apart) - 1)
            for pair in pairs[self._apart[at] != pairs].tolist():
                one, other = divmod(pair, self._most)
                if pair in self._found_apart or clusters.find(one) == clusters.find(other):
                    continue
                if is_near(one, other):
                    clusters.merge(one, other)
                else:  # it may share further bands
                    self._found_apart.add(pair)


class _Clusters:
    """Disjoint sets of numbers (union-find, Tarjan 1975), in one array."""

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size)
        self._flat = True

    def find(self, at: int) -> int:
        while (parent := int(self._parents[at])) != at:
            self._parents[at] = self._parents[parent]
            at = parent
        return at

    def merge(self, left: int, right: int) -> None:
        first, second = sorted((self.find(left), self.find(right)))
        self._parents[second] = first
        self._flat = False

    def roots(self) -> Ints:
        """Return for each number the smallest of its set."""
        while not self._flat:
            above = self._parents[self._parents]
            self._flat = bool((above == self._parents).all())
            self._parents = above
        return self._parents


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all (the finalizer of MurmurHash3)."""
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def verify_disjoint(
    trained_on: Dataset, evaluated_on: Dataset, holdout: Sequence[Example]
) -> DisjointProof:
    """Compare ``holdout``, of ``evaluated_on``, with all messages an adapter has seen: the training
    messages of its dataset, and validation, which chose its epoch, temperature and thresholds.

    A copy has the same text or the same canonical text; a near-copy has ``SIMILARITY`` or more in
    one of the two. If one of the datasets was redacted, both are compared redacted. Ids are
    compared too, since an edited message keeps its id. Raises BadInput as ``refuse_unlike``. The
    proof holds digests and counts, no text, and no verdict.
    """
    refuse_unlike(trained_on, evaluated_on)
    redacted = bool(trained_on.redaction or evaluated_on.redaction)
    known = (*trained_on.train, *trained_on.validation)
    seen = _keys(known, redacted=redacted)
    held = _keys(holdout, redacted=redacted)
    seen_own, held_own = (
        [canonical(example.message) for example in some] for some in (known, holdout)
    )
    texts, forms = set(seen), set(seen_own)
    passages = trained_on.passages | evaluated_on.passages
    fresh = [
        at for at in range(len(holdout)) if held[at] not in texts and held_own[at] not in forms
    ]
    learned = _sets(seen, seen_own, passages)
    near = {
        fresh[place]
        for some in (held, held_own)
        for place, _, _ in near_pairs(
            [shingles(some[at], passages) for at in fresh], learned, SIMILARITY, most=1
        )
    }
    ids = {example.id for example in known}
    return DisjointProof(
        trained_on=trained_on.digest,
        evaluated_on=evaluated_on.digest,
        holdout_sha256=evaluated_on.holdout_sha256,
        similarity=SIMILARITY,
        seen_messages=len(seen),
        holdout_messages=len(held),
        copies=len(held) - len(fresh),
        near_copies=len(near),
        same_ids=sum(holdout[at].id in ids for at in fresh if at not in near),
    )


def _sets(keys: Sequence[str], own: Sequence[str], passages: Passages) -> list[ShingleSet]:
    """Return the shingles of the texts, and of the canonical forms that differ from them in more
    than numbers and marks."""
    differ = (form for key, form in zip(keys, own, strict=True) if mask(form) != mask(key))
    return [shingles(text, passages) for text in chain(keys, differ)]


def refuse_unlike(trained_on: Dataset, evaluated_on: Dataset) -> None:
    """Raise BadInput if the two datasets were cleaned differently, so that a copy would look new.

    They may differ in the redaction of mail addresses and numbers, which can be applied afterwards.
    Names cannot be redacted without the model, and stripped text is lost.
    """
    one, other = cleaning_of(trained_on), cleaning_of(evaluated_on)
    differ = [name for name in one if one[name] != other[name]]
    if differ:
        raise BadInput(
            f"{evaluated_on.directory} and {trained_on.directory}: were cleaned differently "
            f"({', '.join(differ)}), so copies cannot be recognized: prepare both with the same "
            "--strip-quotes, --strip-signatures and --redact-names"
        )


def _keys(examples: Sequence[Example], *, redacted: bool) -> list[str]:
    if not redacted:
        return [example.key for example in examples]
    texts = (redact_personal_data(example.message)[0] for example in examples)
    return [Example("", text, "").key for text in texts]
