"""The labels that look most like two, in their order.

A label is nearly always made of several requests, so that a test for one heap or two would name all
of them, and how far its halves lie apart says little: a broad label's do. What makes a label one is
that its messages are each other's neighbours more than another label's. So it is divided in two, in
two ways, and for each it is counted how many of a half's nearest neighbours are in the other half,
beside how many would be there if that were any other label.

That orders labels better than it judges one: where a label is two, it is among the first two more
often than not, but a sound taxonomy has a first one as well. So the first are named for a person
to look at, and called two only where their halves are as strange to each other as labels are.
Vectors are sentence embeddings of length 1. There is no p-value; how often it is right and wrong
was simulated (docs/figures.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.advice.shape import Vectors

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
_NEIGHBOURS = 0.2  # of so many messages of a label
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
        near = _neighbours(own, strange, round(_NEIGHBOURS * most))
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
