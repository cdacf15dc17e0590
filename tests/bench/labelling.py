"""Labels chosen as ``clerk-desk label`` chooses them, against labels in a random order.

    python -m tests.bench.labelling [--runs 20] [--skew 0.75]

Each run draws a test part from the sample shop's messages and labels the others, whose labels are
known, in batches of 25: at random, or three in four by ``clerk-trainer suggest`` and one in four at
random. The same cheap model learns from both, and is measured on the test part. With ``--skew``
each label is that much rarer than the one before, in an order that is drawn again for each run.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.known_messages import read_known
from trainer.check.suspects import Matrix
from trainer.suggest.order import BATCH, order, predict
from trainer.suggest.texts import make_features
from worker.common.base_model import find_embedding_model
from worker.contract.text import message_sha256

SIZES = (50, 100, 200, 400)
KEPT = Path(tempfile.gettempdir()) / "bench-labelling.npz"
_TEST = 1_000


@dataclass(frozen=True, slots=True)
class Shop:
    """Features, (messages, dimensions), and labels of all messages."""

    x: Matrix
    y: NDArray[np.int64]
    labels: int


def read_shop() -> Shop:
    truth = {message_sha256(row[0]): row for row in read_known()}
    texts = {digest: message for digest, (message, _) in sorted(truth.items())}
    names = sorted({label for _, label in truth.values()})
    y = np.array([names.index(truth[digest][1]) for digest in texts], dtype=np.int64)
    return Shop(make_features(texts, find_embedding_model(), KEPT), y, len(names))


def measure(shop: Shop, known: list[int], test: NDArray[np.int64]) -> tuple[float, float]:
    """Return accuracy and mean recall of the labels."""
    found = predict(shop.x[known], shop.y[known], shop.x[test], shop.labels).argmax(axis=1)
    right = found == shop.y[test]
    recalls = [right[shop.y[test] == label].mean() for label in np.unique(shop.y[test])]
    return float(right.mean()), float(np.mean(recalls))


def run(shop: Shop, seed: int, skew: float) -> dict[int, tuple[float, ...]]:
    """Return by number of labels: accuracy and mean recall, at random and chosen."""
    draw = np.random.default_rng(seed)
    rank = draw.permutation(shop.labels)
    kept = np.flatnonzero(draw.random(len(shop.y)) < skew ** rank[shop.y])
    places = draw.permutation(kept)
    cut = min(_TEST, len(places) // 3)
    test, pool = places[:cut], [int(at) for at in places[cut:]]
    drawn = draw.random(len(pool)) < 0.25
    sample = [at for at, is_drawn in zip(pool, drawn, strict=True) if is_drawn]
    others = [at for at, is_drawn in zip(pool, drawn, strict=True) if not is_drawn]
    known: list[int] = []
    found: dict[int, tuple[float, ...]] = {}
    while len(known) < SIZES[-1]:
        if known:
            probabilities = predict(shop.x[known], shop.y[known], shop.x[others], shop.labels)
            ordered = order(probabilities, shop.x[others], seed=len(known))
            others = [others[at] for at in ordered]
        at_random = (len(known) + BATCH) // 4 - len(known) // 4
        known += sample[:at_random] + others[: BATCH - at_random]
        sample, others = sample[at_random:], others[BATCH - at_random :]
        if (size := len(known)) in SIZES:
            found[size] = (*measure(shop, pool[:size], test), *measure(shop, known, test))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--skew", type=float, default=1.0)
    given = parser.parse_args()
    shop = read_shop()
    runs = [run(shop, seed, given.skew) for seed in range(given.runs)]
    print(
        "labels  accuracy: random  chosen  difference (95 %)   recall: random  chosen  difference"
    )
    for size in SIZES:
        found = np.array([each[size] for each in runs])
        line = f"{size:6}"
        for column, gap in ((0, 12), (1, 9)):
            difference = found[:, column + 2] - found[:, column]
            half = 1.96 * difference.std(ddof=1) / len(runs) ** 0.5
            line += (
                f"{found[:, column].mean():{gap + 6}.1%}{found[:, column + 2].mean():8.1%}"
                f"  {100 * difference.mean():+.1f} ± {100 * half:.1f}"
            )
        print(line)


if __name__ == "__main__":
    main()
