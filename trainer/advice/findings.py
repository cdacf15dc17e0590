"""What decisions say about the labels themselves: labels that people confuse, one that is
missing, and one that looks like two. Vectors are sentence embeddings of length 1.

Every claim about confused labels is a binomial test against a rate that a sound taxonomy has
too, at 5 % over all labels or pairs together (Bonferroni): of sound taxonomies at most one in
twenty hears a wrong word of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.metrics import ALPHA, binomial_tail
from worker.contract.exchange import Answer

NONE = ""
"""What stands for "no label fits"."""


@dataclass(slots=True)
class DecidedMessage:
    """One message that people decided on. ``opinions`` are independent labels of people (``NONE``:
    none fits): two of them are what agreement is measured by; ``outcome`` is what counts."""

    id: str
    message_sha256: str
    outcome: str | None = None
    guideline: str | None = None
    opinions: list[str] = field(default_factory=list)

    @property
    def doubly(self) -> bool:
        """Whether two people or more decided on it, each alone."""
        return len(self.opinions) > 1


def gather(answers: Iterable[Answer], labels: Mapping[str, str]) -> dict[str, DecidedMessage]:
    """Return the decided messages by their digest. ``labels`` maps digests to the labels that the
    dataset gives.

    A label that an audit gave blind stands next to the label that the hold-out has: two opinions,
    each without the other. A decision that showed a label or a suggestion does not: anyone who sees
    one agrees too often.
    """
    found: dict[str, DecidedMessage] = {}
    for answer in answers:
        sha256 = answer.message_sha256
        decided = found.setdefault(sha256, DecidedMessage(answer.id, sha256))
        label = _label(answer, labels)
        if label is None:
            continue
        if answer.role == "opinion":
            decided.opinions.append(label)
            continue
        decided.outcome, decided.guideline = label, answer.guideline
        if answer.audits_holdout and not decided.opinions and sha256 in labels:
            decided.opinions = [labels[sha256], label]
    return found


def _label(answer: Answer, labels: Mapping[str, str]) -> str | None:
    """Return the label that a decision comes to; None where the one that it accepts is unknown."""
    if answer.decision == "drop":
        return NONE
    return answer.new_label or labels.get(answer.message_sha256)


TOLERATED_PAIR = 0.05
"""Share of two labels' messages on which careful people may take one for the other."""

COIN = 0.5
"""How often two people disagree on labels that they can only guess between."""

ONE_LABEL = COIN / 2
"""Disagreement of a pair above which it is nearer to one label than to two."""

TOLERATED_LABEL = 0.25
"""Share of a label's messages on which two people may disagree: each wrong once in eight times."""


@dataclass(frozen=True, slots=True)
class PairFound:
    """Two labels, on how many messages people disagree between just these, out of how many that
    concern them; ``alike`` where they look like one label. ``digests`` name those messages."""

    labels: tuple[str, str]
    disagreements: int
    messages: int
    p_value: float
    alike: bool
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelFound:
    """A label whose messages people disagree on, beyond the pairs that were found."""

    label: str
    disagreements: int
    messages: int
    p_value: float
    digests: tuple[str, ...]


def find_pairs(decided: Iterable[DecidedMessage], labels: Sequence[str]) -> list[PairFound]:
    """Return the pairs that people confuse, the most often confused first."""
    between: dict[tuple[str, str], list[str]] = {}
    concern: Counter[str] = Counter()
    doubly = [each for each in decided if each.doubly]
    for each in doubly:
        said = sorted(set(each.opinions) - {NONE})
        concern.update(said)
        for pair in combinations(said, 2):
            between.setdefault(pair, []).append(each.message_sha256)
    tests = max(1, len(labels) * (len(labels) - 1) // 2)
    found = []
    for pair, digests in between.items():
        messages = concern[pair[0]] + concern[pair[1]] - len(digests)
        p = min(1.0, tests * binomial_tail(len(digests), messages, TOLERATED_PAIR))
        if p >= ALPHA:
            continue
        one = min(1.0, tests * binomial_tail(len(digests), messages, ONE_LABEL))
        alike = one < ALPHA
        found.append(
            PairFound(pair, len(digests), messages, one if alike else p, alike, tuple(digests))
        )
    return sorted(found, key=lambda each: (-each.disagreements / each.messages, each.labels))


def find_contradictory(
    decided: Iterable[DecidedMessage], labels: Sequence[str], pairs: Sequence[PairFound]
) -> list[LabelFound]:
    """Return the labels that people disagree on too often, where no pair explains it."""
    explained = {digest for pair in pairs for digest in pair.digests}
    found = []
    doubly = [each for each in decided if each.doubly and each.message_sha256 not in explained]
    for label in labels:
        of = [each for each in doubly if label in each.opinions]
        odd = tuple(each.message_sha256 for each in of if len(set(each.opinions)) > 1)
        p = min(1.0, len(labels) * binomial_tail(len(odd), len(of), TOLERATED_LABEL))
        if p < ALPHA:
            found.append(LabelFound(label, len(odd), len(of), p, odd))
    return sorted(found, key=lambda each: each.p_value)


Vectors = NDArray[np.float32]

LEAST = 8
"""Messages that a cluster needs to be spoken of."""

_NEIGHBOURS = 10
_HALF = 0.5
TOLERATED_NONE = 0.25
"""Share of decisions in one corner of the messages that may say that no label fits."""


@dataclass(frozen=True, slots=True)
class MissingFound:
    """A cluster of messages that fit no label: its ``places`` among those, and in its corner how
    many decisions said so, of how many."""

    places: tuple[int, ...]
    dropped: int
    decided: int
    p_value: float


def find_missing(dropped: Vectors, kept: Vectors) -> list[MissingFound]:
    """Return clusters among ``dropped``, messages that people found no label for, that look like a
    label of their own, the largest first. ``kept`` are messages that have one.

    A message is in a cluster's core where at least half of its ten nearest neighbours of all were
    dropped too, and cores that are neighbours are one cluster (density-based, as DBSCAN; Ester et
    al. 1996): strays have neighbours that people found a label for. A cluster is spoken of where
    significantly more than a quarter of its messages and their neighbours were dropped.
    """
    if len(dropped) < LEAST:
        return []
    count = len(dropped)
    cosine = dropped @ np.concatenate([dropped, kept]).T
    cosine[np.arange(count), np.arange(count)] = -2.0
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :_NEIGHBOURS]
    core = (near < count).mean(axis=1) >= _HALF
    clusters = [places for places in _linked(near, core) if len(places) >= LEAST]
    found = []
    for places in clusters:
        around = np.unique(np.concatenate([places, near[places].ravel()]))
        here = int((around < count).sum())
        p = min(1.0, len(clusters) * binomial_tail(here, len(around), TOLERATED_NONE))
        if p < ALPHA:
            found.append(MissingFound(tuple(places.tolist()), here, len(around), p))
    return sorted(found, key=lambda each: -len(each.places))


def _linked(near: NDArray[np.int64], core: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the cores as clusters: two are in one where a chain of neighbours links them."""
    links: dict[int, set[int]] = {int(at): set() for at in np.flatnonzero(core)}
    for at, linked in links.items():
        for other in near[at].tolist():
            if other in links:
                linked.add(other)
                links[other].add(at)
    clusters, seen = [], set[int]()
    for start in links:
        cluster, waiting = set[int](), [start]
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                cluster.add(at)
                waiting += links[at]
        if cluster:
            clusters.append(np.array(sorted(cluster), dtype=np.int64))
    return clusters


# Labels that look like two.
#
# A label is nearly always made of several requests, so that a test for one heap or two would name
# all of them, and how far its halves lie apart says little: a broad label's do. What makes a
# label one is that its messages are each other's neighbours more than another label's. So it is
# divided in two, in two ways, and for each it is counted how many of a half's nearest neighbours
# are in the other half, next to how many would be there if that were any other label.
#
# That orders labels better than it judges one: where a label is two, it is among the first two
# more often than not, but a sound taxonomy has a first one as well. So the first are named for a
# person to look at, and called two only where their halves are as strange to each other as labels
# are. There is no p-value; how often it is right and wrong was simulated (docs/figures.md).


Rows = NDArray[np.float64]
Halves = NDArray[np.bool_]

LEAST_LABEL = 150
"""Messages of a label below which it is not judged: its halves' neighbours are too few."""

MOST = 400
"""Messages of each label that are looked at, or as many as the smallest that is judged has: of
labels of different sizes the larger ones' would be nearer to each other."""

NAMED = 2
"""Labels that are named."""

_LEAST_LABELS = 5
_LEAST_PART = 0.15
_NEAR_SHARE = 0.2  # of so many messages of a label
_PRIOR = 5.0
_GRAPH_NEIGHBOURS = 10
_SHRINKAGE = 0.5
_BOUND = 0.1  # nine links for ten


@dataclass(frozen=True, slots=True)
class SplitFound:
    """A label whose messages fall into two parts; ``part`` (messages of the label) is 0 or 1.
    ``links`` is how many neighbours the parts have in each other for each that they would have in
    another label of the same size; ``strange``: hardly more than labels have in each other."""

    label: str
    part: NDArray[np.int64]
    links: float
    strange: bool


def find_split(vectors: Sequence[Vectors], labels: Sequence[str]) -> list[SplitFound]:
    """Return the two labels that look most like two, the first first, and none where there are
    fewer than five to judge. ``vectors`` holds each label's messages."""
    judged = [at for at, rows in enumerate(vectors) if len(rows) >= LEAST_LABEL]
    if len(judged) < _LEAST_LABELS:
        return []
    most = min(MOST, *(len(vectors[at]) for at in judged))
    draw = np.random.default_rng(0)
    drawn = [draw.permutation(len(rows))[:most] for rows in vectors]
    looked_at = [
        rows[places].astype(np.float64) for rows, places in zip(vectors, drawn, strict=True)
    ]
    scatters = [_scatter(rows) for rows in looked_at]
    within, found = sum(scatters[1:], start=scatters[0]), []
    for at in judged:
        own = looked_at[at]
        strange = np.concatenate([rows for place, rows in enumerate(looked_at) if place != at])
        whitening = _whitening((within - scatters[at]) / len(strange))
        by_mean, part = _halve(own @ whitening, vectors[at].astype(np.float64) @ whitening)
        divisions = (by_mean, _cut(own))
        if any(not _LEAST_PART <= half.mean() <= 1 - _LEAST_PART for half in divisions):
            continue
        near = _neighbours(own, strange, round(_NEAR_SHARE * most))
        score = min(_separation(near, half, len(strange)) for half in divisions)
        found.append(SplitFound(labels[at], part, float(np.exp(-score)), score > _BOUND))
    return sorted(found, key=lambda each: each.links)[:NAMED]


def _scatter(rows: Rows) -> Rows:
    if not len(rows):
        return np.zeros((rows.shape[1], rows.shape[1]))
    apart = rows - rows.mean(axis=0)
    return np.asarray(apart.T @ apart)


def _whitening(within: Rows) -> Rows:
    """Return what makes the scatter within the other labels alike in all directions, half of the
    way: along what varies within labels, the halves of any of them lie apart."""
    scatter, directions = np.linalg.eigh(within)
    shrunk = (1 - _SHRINKAGE) * scatter + _SHRINKAGE * scatter.mean()
    return np.asarray(directions / np.sqrt(np.maximum(shrunk, 1e-9)))


def _halve(rows: Rows, everything: Rows) -> tuple[Halves, NDArray[np.int64]]:
    """Return the division by k-means, and what it says of all of the label's messages."""
    from sklearn.cluster import KMeans  # takes a second

    means = KMeans(2, n_init=4, random_state=0).fit(rows)
    return np.asarray(means.labels_ == 1), np.asarray(means.predict(everything), dtype=np.int64)


def _cut(rows: Rows) -> Halves:
    """Return the division that cuts the fewest links between neighbours, for its size: the sweep
    over the second eigenvector of the normalized Laplacian (Shi & Malik 2000)."""
    count = len(rows)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -2.0)
    near = np.argpartition(-cosine, _GRAPH_NEIGHBOURS, axis=1)[:, :_GRAPH_NEIGHBOURS]
    links = np.zeros((count, count))
    links[np.arange(count)[:, None], near] = 1.0
    links = np.maximum(links, links.T)
    degree = links.sum(axis=1)
    laplacian = np.eye(count) - links / np.sqrt(np.outer(degree, degree))
    order = np.argsort(np.linalg.eigh(laplacian)[1][:, 1] / np.sqrt(degree), kind="stable")
    cuts = []
    for size in range(round(_LEAST_PART * count), round((1 - _LEAST_PART) * count) + 1):
        half = np.zeros(count, dtype=np.bool_)
        half[order[:size]] = True
        inside, outside = degree[half].sum(), degree[~half].sum()
        cuts.append((links[half][:, ~half].sum() / min(inside, outside), half))
    return min(cuts, key=lambda each: float(each[0]))[1]


def _neighbours(own: Rows, strange: Rows, count: int) -> NDArray[np.int64]:
    """Return the nearest neighbours of each of a label's messages, (messages, neighbours): places
    in the label, and -1 for another label's message."""
    cosine = own @ np.concatenate([own, strange]).T
    np.fill_diagonal(cosine, -2.0)
    near = np.argpartition(-cosine, count, axis=1)[:, :count]
    return np.where(near < len(own), near, -1)


def _separation(near: NDArray[np.int64], half: Halves, strangers: int) -> float:
    """Return the mean over both halves of the logarithm of how many neighbours a half would have in
    the other one if that were another label, for each that it has."""
    told = 0.0
    for side in (half, ~half):
        mine = near[side]
        foreign = mine < 0
        there = int((~foreign & ~side[np.where(foreign, 0, mine)]).sum())
        expected = float(foreign.sum()) * int((~side).sum()) / strangers
        told += float(np.log((expected + _PRIOR) / (there + _PRIOR))) / 2
    return told
