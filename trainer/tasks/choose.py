"""Which unlabelled messages to ask about: uncertain ones, no two alike.

Batch active learning by gradient embeddings (BADGE; Ash et al. 2020, arXiv 1906.03671): what the
loss's gradient at the last layer would be if the model's own answer were the label. Its length is
the model's uncertainty, its direction what the message would teach. Seeding as k-means++ does
(Arthur & Vassilvitskii 2007) draws messages whose gradients are long and far apart. Only the
messages of the smallest margins are looked at (Scheffer et al. 2001), which a plain margin is hard
to beat by (Bahri et al. 2022, arXiv 2210.03822).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.check.duplicates import Fingerprint, fingerprint
from trainer.dataset.near_duplicates import near_clusters, near_pairs

Floats = NDArray[np.float64]

WIDTH = 10
"""So many times the batch's size are the messages of the smallest margins that a batch is drawn
from: 1 is the margin alone, without diversity."""


def margins(probabilities: Floats) -> Floats:
    """Return the likeliest label's probability less the second one's, (messages,)."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def choose_batch(
    probabilities: Floats,
    features: NDArray[np.float32],
    size: int,
    *,
    seed: int,
    width: int = WIDTH,
) -> list[int]:
    """Return the places of at most ``size`` messages to ask about, the first one first.

    ``probabilities`` (messages, labels) are the model's, ``features`` (messages, dimensions) unit
    vectors. Deterministic for a seed; the same messages in another order give the same batch only
    where no two are exactly alike.
    """
    order = np.argsort(margins(probabilities), kind="stable")[: size * width]
    if len(order) <= size:
        return [int(at) for at in order]
    residual = -probabilities[order]
    residual[np.arange(len(order)), probabilities[order].argmax(axis=1)] += 1.0
    return [int(order[at]) for at in _seed_centres(residual, features[order], size, seed)]


def _seed_centres(
    residual: Floats, features: NDArray[np.float32], size: int, seed: int
) -> list[int]:
    """Draw centres as k-means++ does, among the outer products of the rows of ``residual`` and
    ``features``, which are never formed: the inner product of two is the product of two."""
    draw = np.random.default_rng(seed)
    x = features.astype(np.float64)
    lengths = (residual**2).sum(axis=1) * (x**2).sum(axis=1)
    chosen = [int(lengths.argmax())]
    distances = np.full(len(x), np.inf)
    while len(chosen) < size:
        last = chosen[-1]
        inner = (residual @ residual[last]) * (x @ x[last])
        distances = np.minimum(distances, np.maximum(lengths + lengths[last] - 2 * inner, 0.0))
        distances[chosen] = 0.0
        total = distances.sum()
        if total <= 0:  # all that are left say the same as one that is chosen
            rest = np.setdiff1d(np.arange(len(x)), chosen)
            chosen += [int(at) for at in rest[: size - len(chosen)]]
            break
        chosen.append(int(draw.choice(len(x), p=distances / total)))
    return chosen


def one_of_each(
    keys: Sequence[str], known: Sequence[Fingerprint], *, similarity: float
) -> list[int]:
    """Return the places of the messages worth asking about: none that says what one of ``known``
    says, and one of each cluster of copies and near-duplicates. ``keys`` are as ``Example.key``."""
    first: dict[str, int] = {}
    for at, key in enumerate(keys):
        first.setdefault(key, at)
    distinct = sorted(first)
    mine = [fingerprint(key) for key in distinct]
    near = near_pairs(
        [each.shingles for each in mine], [each.shingles for each in known], similarity, most=1
    )
    copies = {each.key for each in known}
    told = {place for place, _, _ in near}
    told |= {place for place, each in enumerate(mine) if each.key in copies}
    fresh = [key for place, key in enumerate(distinct) if place not in told]
    clusters = near_clusters(fresh, similarity=similarity)
    return sorted(min(first[fresh[place]] for place in cluster) for cluster in clusters)
