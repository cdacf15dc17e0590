"""Wrong labels that near-copies share: how many of them the detector finds.

    python -m tests.bench.copies --tickets CSV --out DIR

The file needs the columns message, category and subcategory. Features and results are kept in
DIR, the same as those of ``tests.bench.noise``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.noise import SEEDS, Data, Ints, hit, kept, load, mean, out_of_fold
from trainer.check.out_of_fold import assign_folds
from trainer.check.suspects import doubtful

LEAST_COPIES = 3


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = load(arguments.tickets, arguments.out)
    print("\n".join(copied_table(kept(arguments.out / "copied.json", copied(data)))))


def copied(data: Data) -> Iterator[dict[str, Any]]:
    """Give whole clusters of near-copies a wrong label, and look for them with each message dealt
    into a fold alone, and with the clusters dealt whole."""
    members: Mapping[int, Ints] = {
        int(cluster): np.flatnonzero(data.clusters == cluster)
        for cluster in np.flatnonzero(np.bincount(data.clusters) >= LEAST_COPIES)
    }
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        labels, sublabels = data.labels.copy(), data.sublabels.copy()
        chosen = random.choice(sorted(members), len(members) // 3, replace=False)
        for cluster in chosen:
            old = data.labels[members[int(cluster)][0]]
            label = random.choice(np.delete(np.arange(data.label_count), old))
            labels[members[int(cluster)]] = label
            sublabels[members[int(cluster)]] = random.choice(np.flatnonzero(data.label_of == label))
        planted = labels != data.labels
        alone = np.arange(len(labels))
        for dealt, clusters in (("each message", alone), ("whole clusters", data.clusters)):
            folds = assign_folds(sublabels, clusters, seed)
            found = out_of_fold(data, data.features["both"], labels, sublabels, folds)
            yield {
                "seed": seed,
                "dealt": dealt,
                "clusters": len(chosen),
                "planted": int(planted.sum()),
                "queue": hit(doubtful(labels, found), planted),
            }


def copied_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over the seeds: how many of the wrong labels of near-copies are found."""
    yield f"Wrong labels on whole clusters of {LEAST_COPIES} near-copies or more:"
    yield ""
    yield "| dealt into folds | planted: clusters, rows | queue: rows, recall |"
    yield "|---|---:|---:|"
    for dealt in ("each message", "whole clusters"):
        mine = [row for row in rows if row["dealt"] == dealt]
        queue = [row["queue"] for row in mine]
        yield (
            f"| {dealt} | {mean(mine, 'clusters'):.0f}, {mean(mine, 'planted'):.0f} | "
            f"{mean(queue, 'rows'):.0f}, {mean(queue, 'recall'):.1%} |"
        )
    yield ""


if __name__ == "__main__":
    main()
