"""Labels by the shape of their messages: one that looks like two, and one that is missing.

Vectors are sentence embeddings of length 1. ``find_split`` has no p-value: it says which label's
two halves lie further apart than those of the usual label; how often it is wrong was simulated
(tests/bench/circle_split.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.metrics import ALPHA, binomial_tail

Vectors = NDArray[np.float32]

LEAST = 8
"""Messages that a cluster needs to be spoken of."""

_LEAST_LABEL = 40
_LEAST_LABELS = 5
_LEAST_PART = 0.15
_APART = 1.42  # e to the 0.35
_ALIKE = 0.15
_SPREADS = 5.0
_NEIGHBOURS = 10
_HALF = 0.5
_TINY = 1e-6
TOLERATED_NONE = 0.25
"""Share of decisions in one corner of the messages that may say that no label fits."""


@dataclass(frozen=True, slots=True)
class SplitFound:
    """A label whose messages fall into two parts; ``part`` (messages of the label) is 0 or 1.
    ``score`` says how many times as far apart they lie as the halves of the usual label."""

    label: str
    part: NDArray[np.int64]
    score: float


@dataclass(frozen=True, slots=True)
class MissingFound:
    """A cluster of messages that fit no label: its ``places`` among those, and in its corner how
    many decisions said so, of how many."""

    places: tuple[int, ...]
    dropped: int
    decided: int
    p_value: float


def find_split(vectors: Sequence[Vectors], labels: Sequence[str]) -> list[SplitFound]:
    """Return the labels that look like two. ``vectors`` holds each label's messages.

    Every label is made of several requests, so that a test for one heap or two would name them all.
    What is asked is whether its best division (k-means) is more than is usual among these labels,
    in two ways at once: how far the centres are apart in units of the spread about them, and in
    units of how far each is from the nearest other label. Both are divided by their median over
    labels, and a label is spoken of where their product is large: 1.42 times the usual where the
    labels are alike in this (the furthest left aside), else by five times their spread (standard
    deviation of the logarithm). At least five labels are needed to know what is usual.
    """
    usable = [at for at, rows in enumerate(vectors) if len(rows) >= _LEAST_LABEL]
    parts = {at: _halves(vectors[at]) for at in usable}
    usable = [at for at in usable if _LEAST_PART <= parts[at].mean() <= 1 - _LEAST_PART]
    if len(usable) < _LEAST_LABELS:
        return []
    centres = np.stack([vectors[at].mean(axis=0) for at in usable])
    apart = np.array([
        _apart(vectors[at], parts[at], np.delete(centres, place, axis=0))
        for place, at in enumerate(usable)
    ])  # fmt: skip
    scores = (apart / np.maximum(np.median(apart, axis=0), _TINY)).prod(axis=1)
    spread = float(np.log(np.sort(scores)[:-1]).std())
    bound = _APART if spread <= _ALIKE else np.exp(_SPREADS * spread)
    return [
        SplitFound(labels[at], parts[at], float(score))
        for at, score in zip(usable, scores, strict=True)
        if score > bound
    ]


def _halves(rows: Vectors) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans  # takes a second

    found = KMeans(2, n_init=3, random_state=0).fit_predict(rows)
    return np.asarray(found, dtype=np.int64)


def _apart(
    rows: Vectors, part: NDArray[np.int64], others: NDArray[np.floating[Any]]
) -> tuple[float, float]:
    """Return how far the halves' centres are apart, in units of the spread about them and of their
    distance from the nearest of the ``others``, the other labels' centres."""
    first, second = rows[part == 0], rows[part == 1]
    centres = first.mean(axis=0), second.mean(axis=0)
    within = ((first - centres[0]) ** 2).sum() + ((second - centres[1]) ** 2).sum()
    distance = float(np.linalg.norm(centres[0] - centres[1]))
    strangers = [np.linalg.norm(others - centre, axis=1).min() for centre in centres]
    spread = max(float(np.sqrt(within / len(rows))), _TINY)
    return distance / spread, distance / max(float(np.mean(strangers)), _TINY)


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
