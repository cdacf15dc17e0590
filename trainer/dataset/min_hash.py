"""Which texts may be near-duplicates: candidates by MinHash, in bounded memory.

The smallest hash of a set of shingles is that of another set with a probability that is their
Jaccard index (Broder 1997). Two texts are candidates where all hashes of one of ``BANDS`` bands
agree (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4). Of a pair at similarity s
and bands of r hashes that is missed by 1 - (1 - (1 - s^r)^BANDS): for s = 0.7 that is a chance of
2 in 10^12 up to 16,000 texts (r = 3), 2 in 10^8 up to 128,000 (r = 4), 7 in 10^6 up to 512,000
(r = 5), and 3 in 10^4 beyond (r = 6); for a likelier pair it is far less. More texts need
longer bands, or the unlike pairs among the candidates grow with their square.

For each text 128 bytes are held: the low bytes of some of its hashes, by which most candidates are
passed over before anybody compares their shingles. The bands wait in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainer.errors import BadInput

SHINGLE_CHARS = 4
BANDS = 64
MISSED = 1e-3
"""The chance with which a pair just at the threshold may be missed, at most."""

_SKETCH_BYTES = 128
_DEVIATIONS = 5  # of the estimate from the sketch, below which a pair is passed over: 3 in 10^7
_CHUNK_CHARS = 1 << 16  # the arrays of so many shingles stay in a core's cache
_SMALL_RUN = 64
_HELD_BYTES = 1 << 25  # of the bands, 256 bytes a text; more of them go to the disk
_PAIRS_AT_ONCE = 1 << 15
_LADDER = ((1 << 14, 3), (1 << 17, 4), (1 << 19, 5))
_LONGEST_BAND = 6

U32 = NDArray[np.uint32]
Ints = NDArray[np.int64]


def hashes_in_a_band(texts: int, similarity: float) -> int:
    """Return how many hashes a band has: more for more texts, and no more than ``MISSED`` allows
    at a similarity."""
    wanted = next((hashes for most, hashes in _LADDER if texts <= most), _LONGEST_BAND)
    while wanted > 1 and (1 - similarity**wanted) ** BANDS > MISSED:
        wanted -= 1
    return wanted


class Candidates:
    """Texts in the order in which they were added, at most ``most``; ``unite`` compares them."""

    def __init__(self, most: int, similarity: float) -> None:
        self._similarity = similarity
        self._most = most
        self._hashes = hashes_in_a_band(most, similarity)
        count = BANDS * self._hashes
        random = np.random.default_rng(0)  # always the same: a dataset depends on it
        self._flips = random.integers(1 << 32, size=count, dtype=np.uint32)
        self._factors = random.integers(1 << 32, size=count, dtype=np.uint32) | np.uint32(1)
        self._sketches = np.empty((most, min(_SKETCH_BYTES, count)), dtype=np.uint8)
        self._added = 0
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._file = tempfile.SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115 (see __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, text: str) -> None:
        """Add a text; its shingles are its runs of four characters, or all of it."""
        self._waiting.append(text.ljust(SHINGLE_CHARS, "\0"))
        self._waiting_chars += len(text)
        if self._waiting_chars >= _CHUNK_CHARS:
            self._flush()

    def unite(self, is_near: Callable[[int, int], bool]) -> Ints:
        """Return for each text the smallest number of its cluster: the texts that a chain of near
        pairs links. ``is_near`` compares two texts, by their numbers."""
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
            data = (mixed >> np.uint64(32)).astype(np.uint32).tobytes()
            self._write(4 * (band * self._most + start), data)
        self._added += count
        self._waiting, self._waiting_chars = [], 0

    def _smallest_hashes(self, texts: list[str]) -> U32:
        """Return the smallest hash of each text's shingles by each function, (hashes, texts)."""
        data = "".join(texts).encode("utf-32-le", "surrogatepass")
        chars = np.frombuffer(data, dtype=np.uint32).astype(np.uint64)
        sizes = np.array([len(text) for text in texts])
        runs = len(chars) - SHINGLE_CHARS + 1
        packed = np.zeros(runs, dtype=np.uint64)
        for at in range(SHINGLE_CHARS):
            packed = _mix(packed + chars[at : at + runs])
        # Runs that begin in one text and end in the next are none.
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
                "temporary room for each; nothing was written; make room, or set TMPDIR"
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
        """Compare the pairs of all short runs: each with the next, with the one after, and so on;
        what the first steps unite the later ones pass over."""
        few = (lengths > 1) & (lengths <= _SMALL_RUN)
        starts, lengths = starts[few], lengths[few]
        for step in range(1, int(lengths.max(initial=0))):
            longer = lengths > step
            starts, lengths = starts[longer], lengths[longer]
            counts = lengths - step
            at = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            self._compare(order[at], order[at + step], clusters, is_near)

    def _compare_large(
        self, run: Ints, clusters: _Clusters, is_near: Callable[[int, int], bool]
    ) -> None:
        """Compare all pairs of a long run that are not of one cluster. Thousands of near-copies
        are one cluster after the first is compared with all, and are not compared again."""
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
            for at in np.flatnonzero(equal >= least):
                one, other = int(some[at]), int(others[at])
                if clusters.find(one) != clusters.find(other) and is_near(one, other):
                    clusters.merge(one, other)


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
