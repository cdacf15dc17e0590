"""What a base's language is worth: German messages, by models that learnt German or English ones.

    python -m tests.bench.languages [--base DIR]

Frozen sentence embeddings of each base with logistic regression, as the recipe embedding-linear has
them. ``german.csv`` was written for the project, with the labels of the demo's shop.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from trainer.model.embeddings import EMBEDDING_LENGTH, embed
from trainer.statistics.metrics import wilson
from worker.common.base_model import find_embedding_model
from worker.demo.models import read_samples

_C = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="A multilingual encoder, next to the usual one.")
    given = parser.parse_args()
    with (Path(__file__).parent / "german.csv").open(encoding="utf-8", newline="") as file:
        german = [(row["message"], row["label"]) for row in csv.DictReader(file)]
    english, held = (
        [(each.message, each.label) for each in read_samples(f"{name}.jsonl") if each.label]
        for name in ("train", "holdout")
    )
    for base in filter(None, (find_embedding_model(), given.base)):
        vectors = [
            EMBEDDING_LENGTH * embed([message for message, _ in rows], base)
            for rows in (english, held, german)
        ]
        labels = [np.array([label for _, label in rows]) for rows in (english, held, german)]
        model = LogisticRegression(C=_C, max_iter=1000)
        folds = StratifiedKFold(5, shuffle=True, random_state=1)
        own = cross_val_predict(model, vectors[2], labels[2], cv=folds)
        model.fit(vectors[0], labels[0])
        print(f"{base.name}:")
        for what, found, true in (
            ("learnt 4,004 English, asked English", model.predict(vectors[1]), labels[1]),
            ("learnt 4,004 English, asked German", model.predict(vectors[2]), labels[2]),
            ("learnt 114 German, asked German", own, labels[2]),
        ):
            right = int((found == true).sum())
            low, high = wilson(right, len(true))
            print(f"  {what}: {right} of {len(true)} right, {right / len(true):.1%} "
                  f"({low:.1%} to {high:.1%})")  # fmt: skip


if __name__ == "__main__":
    main()
