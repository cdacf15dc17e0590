"""Labels by the shape of their messages: one that looks like two, and one that is missing.

Vectors are sentence embeddings of length 1. ``find_split`` has no p-value: it says which label's
two halves lie further apart than any other's, as an outlier; how often it is wrong was simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.metrics import ALPHA, binomial_tail

Vectors = NDArray[np.float32]

LEAST = 8
"""Messages that a cluster needs to be spoken of."""

_LEAST_LABEL = 40
_LEAST_LABELS = 5
_LEAST_PART = 0.15
_OUTLIER = 9.0
_NEIGHBOURS = 10
_HALF = 0.5
_SCALE = 0.6745
TOLERATED_NONE = 0.25
"""Share of decisions in one corner of the messages that may say that no label fits."""


@dataclass(frozen=True, slots=True)
class SplitFound:
    """A label whose messages fall into two parts; ``part`` (messages of the label) is 0 or 1.
    ``score`` is the robust z of the parts' separation among all labels (Iglewicz & Hoaglin
    1993)."""

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

    The best division of a label in two (k-means) is measured by how far the two centres are apart,
    in units of the spread about them; a label is spoken of where that is an outlier among labels,
    so that at least five are needed to know what is usual.
    """
    from sklearn.cluster import KMeans  # takes a second

    usable = [at for at, rows in enumerate(vectors) if len(rows) >= _LEAST_LABEL]
    if len(usable) < _LEAST_LABELS:
        return []
    parts, separations = {}, []
    for at in usable:
        parts[at] = np.asarray(KMeans(2, n_init=3, random_state=0).fit_predict(vectors[at]))
        separations.append(_separation(vectors[at], parts[at]))
    values = np.array(separations)
    middle = np.median(values)
    spread = max(float(np.median(np.abs(values - middle))), 1e-3)
    scores = _SCALE * (values - middle) / spread
    return [
        SplitFound(labels[at], parts[at].astype(np.int64), float(score))
        for at, score in zip(usable, scores, strict=True)
        if score > _OUTLIER and _LEAST_PART <= parts[at].mean() <= 1 - _LEAST_PART
    ]


def _separation(rows: Vectors, part: NDArray[np.int64]) -> float:
    first, second = rows[part == 0], rows[part == 1]
    if not len(first) or not len(second):
        return 0.0
    centres = first.mean(axis=0), second.mean(axis=0)
    within = ((first - centres[0]) ** 2).sum() + ((second - centres[1]) ** 2).sum()
    return float(np.linalg.norm(centres[0] - centres[1]) / np.sqrt(within / len(rows)))


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
