"""Find problems of the taxonomy in reviewers' decisions: confused labels, a missing label, and a
label that looks like two. Vectors are sentence embeddings of length 1.

Each claim about confused labels is a binomial test against a rate that is acceptable in a sound
taxonomy, at 5 % over all labels or pairs (Bonferroni): for each kind of claim, a sound taxonomy
gets a wrong one with a probability of at most 5 %.
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
"""The opinion that no label fits."""


@dataclass(slots=True)
class DecidedMessage:
    """A message with decisions. ``opinions`` are reviewers' independent labels (or ``NONE``), by
    which agreement is measured; ``outcome`` is the final label."""

    id: str
    message_sha256: str
    outcome: str | None = None
    guideline: str | None = None
    opinions: list[str] = field(default_factory=list)

    @property
    def doubly(self) -> bool:
        """Whether two or more reviewers decided on it independently."""
        return len(self.opinions) > 1


def gather(answers: Iterable[Answer], labels: Mapping[str, str]) -> dict[str, DecidedMessage]:
    """Return the decided messages by their digest. ``labels`` maps digests to the dataset's labels.

    A blind audit's label and the hold-out's label are two opinions. Other decisions are not
    opinions, because reviewers who see a label or a suggestion agree with it too often.
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
    """Return a decision's label; None if it accepts an unknown one."""
    if answer.decision == "drop":
        return NONE
    return answer.new_label or labels.get(answer.message_sha256)


TOLERATED_PAIR = 0.05
"""Acceptable share of two labels' messages on which careful reviewers confuse them."""

COIN = 0.5
"""The rate at which two reviewers disagree if they guess between two labels."""

ONE_LABEL = COIN / 2
"""A pair with more disagreement is closer to one label than to two."""

TOLERATED_LABEL = 0.25
"""Acceptable share of a label's messages with disagreement: each reviewer is wrong 1 in 8 times."""


@dataclass(frozen=True, slots=True)
class PairFound:
    """Two confused labels: the messages (``digests``) on which reviewers disagree between just
    these two, of the ``messages`` with either label. ``alike``: they look like one label."""

    labels: tuple[str, str]
    disagreements: int
    messages: int
    p_value: float
    alike: bool
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelFound:
    """A label on whose messages reviewers disagree, other than in the pairs that were found."""

    label: str
    disagreements: int
    messages: int
    p_value: float
    digests: tuple[str, ...]


def find_pairs(decided: Iterable[DecidedMessage], labels: Sequence[str]) -> list[PairFound]:
    """Return the confused pairs, the most confused first."""
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
    """Return the labels with too much disagreement that no pair explains."""
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
"""The fewest messages of a cluster that is reported."""

_NEIGHBOURS = 10
_HALF = 0.5
TOLERATED_NONE = 0.25
"""Acceptable share of decisions in a neighbourhood that say that no label fits."""


@dataclass(frozen=True, slots=True)
class MissingFound:
    """A cluster of messages that fit no label: their indexes (``places``), and how many of the
    ``decided`` messages in its neighbourhood were ``dropped``."""

    places: tuple[int, ...]
    dropped: int
    decided: int
    p_value: float


def find_missing(dropped: Vectors, kept: Vectors) -> list[MissingFound]:
    """Return the clusters among ``dropped`` messages (which fit no label) that look like a new
    label, the largest first. ``kept`` are messages with a label.

    A message is in a cluster's core if at least half of its ten nearest neighbours were dropped
    too; neighbouring cores are one cluster (density-based, as DBSCAN; Ester et al. 1996). A cluster
    is reported if significantly more than a quarter of its messages and their neighbours were
    dropped.
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
    """Return the connected components of the cores, as indexes."""
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
# Nearly every label covers several requests, so a test for one cluster or two would report all of
# them, and the distance between a label's halves says little: the halves of a broad label are far
# apart. A label is one label if its messages are each other's neighbours more than another label's
# messages are. So each label is divided in two, by two methods, and the neighbours that a half has
# in the other half are compared with the number expected if that were another label.
#
# This ranks labels better than it tests one. A label that is really two is usually among the first
# two, but a sound taxonomy has a first one too. So the first are named for someone to look at, and
# called two only if their halves are as separate as labels are. There is no p-value; the rates of
# right and wrong were simulated (docs/figures.md).


Rows = NDArray[np.float64]
Halves = NDArray[np.bool_]

LEAST_LABEL = 150
"""The fewest messages of a label that is judged."""

MOST = 400
"""The most messages of each label that are used. All labels are cut to the size of the smallest,
because the messages of a larger label would be nearer to each other."""

NAMED = 2
"""The number of labels that are named."""

_LEAST_LABELS = 5
_LEAST_PART = 0.15
_NEAR_SHARE = 0.2  # neighbours, as a share of a label's messages
_PRIOR = 5.0
_GRAPH_NEIGHBOURS = 10
_SHRINKAGE = 0.5
_BOUND = 0.1  # nine links for ten expected


@dataclass(frozen=True, slots=True)
class SplitFound:
    """A label whose messages fall into two parts; ``part`` (messages,) is 0 or 1. ``links`` is the
    number of neighbours that the parts have in each other, relative to the number in another label
    of the same size; ``separate``: hardly more than two labels have in each other."""

    label: str
    part: NDArray[np.int64]
    links: float
    separate: bool


def find_split(vectors: Sequence[Vectors], labels: Sequence[str]) -> list[SplitFound]:
    """Return the two labels that look most like two, the likelier first; none if fewer than five
    can be judged. ``vectors`` holds each label's messages."""
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
    """Return the matrix that half equalizes the scatter within the other labels in all directions.

    Without it, k-means divides along directions that vary within every label."""
    scatter, directions = np.linalg.eigh(within)
    shrunk = (1 - _SHRINKAGE) * scatter + _SHRINKAGE * scatter.mean()
    return np.asarray(directions / np.sqrt(np.maximum(shrunk, 1e-9)))


def _halve(rows: Rows, everything: Rows) -> tuple[Halves, NDArray[np.int64]]:
    """Return the division by k-means, of the drawn messages and of all of the label's."""
    from sklearn.cluster import KMeans  # takes a second

    means = KMeans(2, n_init=4, random_state=0).fit(rows)
    return np.asarray(means.labels_ == 1), np.asarray(means.predict(everything), dtype=np.int64)


def _cut(rows: Rows) -> Halves:
    """Return the division with the smallest conductance: a sweep over the second eigenvector of the
    normalized Laplacian of the neighbour graph (Shi & Malik 2000)."""
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
    """Return the nearest neighbours of a label's messages, (messages, neighbours): indexes in the
    label, or -1 for another label's message."""
    cosine = own @ np.concatenate([own, strange]).T
    np.fill_diagonal(cosine, -2.0)
    near = np.argpartition(-cosine, count, axis=1)[:, :count]
    return np.where(near < len(own), near, -1)


def _separation(near: NDArray[np.int64], half: Halves, strangers: int) -> float:
    """Return log(expected neighbours in the other half / actual), as a mean over both halves;
    expected as if the other half were another label."""
    score = 0.0
    for side in (half, ~half):
        mine = near[side]
        foreign = mine < 0
        there = int((~foreign & ~side[np.where(foreign, 0, mine)]).sum())
        expected = float(foreign.sum()) * int((~side).sum()) / strangers
        score += float(np.log((expected + _PRIOR) / (there + _PRIOR))) / 2
    return score
