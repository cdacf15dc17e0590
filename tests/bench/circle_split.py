"""How often the advice calls a label two: where it is, and where it is not.

    python -m tests.bench.circle_split --out DIR [--tickets tickets.csv] [--each 160]

From each label so many messages are drawn, with several seeds. Honest: the advice is asked about
the labels as they are. Planted: two labels at random, half of each, under one name, beside the
others as they are. Counted are taxonomies in which an honest label is called two, and planted ones
that are found. ``--each`` first cuts every label to so many messages, whose embeddings are quick.
Writes circle-split.json: figures, no text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.circle_data import Ints, load
from trainer.advice.shape import find_split

SIZES = (80, 200)


def main() -> None:
    """Plant, ask, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tickets", type=Path)
    parser.add_argument("--each", type=int)
    for name, usual in (("seeds", 8), ("pairs", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    messages = load(given.tickets, given.out, each=given.each)
    least = int(np.bincount(messages.labels).min())
    result = [
        study(messages.features, messages.labels, size, given.seeds, given.pairs)
        for size in SIZES
        if size <= least
    ]
    for row in result:
        print(row, flush=True)
    (given.out / "circle-split.json").write_text(json.dumps(result, indent=1) + "\n")


def study(
    features: NDArray[np.float32], labels: Ints, size: int, seeds: int, pairs: int
) -> dict[str, Any]:
    """Return how many taxonomies of each kind there were, and in how many what was said."""
    told: dict[str, Any] = {"messages_a_label": size, "honest": 0, "honest_wrong": 0,
                            "planted": 0, "found": 0, "wrong_beside": 0}  # fmt: skip
    for seed in range(seeds):
        draw = np.random.default_rng([seed, 3])
        parts = [
            features[draw.permutation(np.flatnonzero(labels == label))[:size]]
            for label in range(labels.max() + 1)
        ]
        told["honest"] += 1
        told["honest_wrong"] += bool(find_split(parts, [str(at) for at in range(len(parts))]))
        for vectors in planted(parts, size, draw, pairs):
            names = ["both", *(str(at) for at in range(1, len(vectors)))]
            found = {each.label for each in find_split(vectors, names)}
            told["planted"] += 1
            told["found"] += "both" in found
            told["wrong_beside"] += bool(found - {"both"})
    return told


def planted(
    parts: list[NDArray[np.float32]], size: int, draw: np.random.Generator, most: int
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield taxonomies whose first label is two."""
    everything = list(combinations(range(len(parts)), 2))
    for place in draw.permutation(len(everything))[:most].tolist():
        first, second = everything[place]
        both = np.concatenate([parts[first][: size // 2], parts[second][: size // 2]])
        yield [both, *(rows for at, rows in enumerate(parts) if at not in {first, second})]


if __name__ == "__main__":
    main()
