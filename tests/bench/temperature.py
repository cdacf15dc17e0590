"""A head's temperature before or after its finer outputs are summed
(docs/decisions/temperature-before-the-sum.md).

    python -m tests.bench.temperature --tickets tickets.csv

Word counts with logistic regression on finer labels, from a model that is too unsure to one that is
too sure; the temperature of either way is fitted on some messages and judged on others.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from trainer.statistics.calibration import Floats, Ints, ece, nll, temperature_softmax

LEARNT, FITTED, JUDGED = 2500, 800, 3200
PENALTIES = (3, 10, 30, 100, 1000)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tickets", type=Path, required=True)
    with parser.parse_args().tickets.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(1).shuffle(rows)
    learnt, others = rows[:LEARNT], rows[LEARNT : LEARNT + FITTED + JUDGED]
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    x = vectorizer.fit_transform([row["message"] for row in learnt])
    x_others = vectorizer.transform([row["message"] for row in others])
    category = {row["subcategory"]: row["category"] for row in rows}
    labels = sorted(set(category.values()))
    truth = np.array([labels.index(row["category"]) for row in others], dtype=np.int64)
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=200)
        model.fit(x, [row["subcategory"] for row in learnt])
        label_of = np.array(
            [labels.index(category[name]) for name in model.classes_], dtype=np.int64
        )
        compare(penalty, model.decision_function(x_others), truth, label_of)
    return 0


def compare(penalty: float, logits: Floats, truth: Ints, label_of: Ints) -> None:
    """Fit and judge both ways, and print a line each."""
    summed = np.log(np.maximum(temperature_softmax(logits, 1.0, label_of), 1e-300))
    for way, scores, of in (("before", logits, label_of), ("after", summed, None)):
        found = minimize_scalar(
            lambda log_t, scores=scores, of=of: nll(
                temperature_softmax(scores[:FITTED], math.exp(log_t), of), truth[:FITTED]
            ),
            bounds=(-3, 3),
            method="bounded",
        )
        probabilities = temperature_softmax(scores[FITTED:], math.exp(found.x), of)
        right = probabilities.argmax(axis=1) == truth[FITTED:]
        print(
            f"C = {penalty}, {way} the sum: temperature {math.exp(found.x):.2f}, accuracy "
            f"{right.mean():.1%}, NLL {nll(probabilities, truth[FITTED:]):.3f}, ECE "
            f"{ece(probabilities.max(axis=1), right):.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
