"""A label that is missing, by the shape of the messages that fit none.

Vectors are sentence embeddings of length 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.metrics import ALPHA, binomial_tail

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
