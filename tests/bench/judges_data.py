"""Real predictions for ``tests.bench.judges``: a run folder's, or those of cheap models."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import ComplementNB

from trainer.artifacts.duel import ANSWERS_NAME, DUEL_FOLDER
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER, PREDICTIONS
from trainer.statistics.calibration import fit_temperature, temperature_softmax
from trainer.statistics.figures import ThresholdRule
from trainer.statistics.thresholds import review_threshold

DEMO = Path(__file__).parents[2] / "worker" / "demo" / "data"
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Joint:
    """Which messages the adapter (messages) and each baseline (messages, baselines) get right."""

    source: str
    adapter: NDArray[np.bool_]
    others: NDArray[np.bool_]

    @property
    def baselines(self) -> int:
        """How many there are."""
        return int(self.others.shape[1])

    def first(self, count: int) -> Joint:
        """Return the same with the first baselines alone."""
        return replace(self, others=self.others[:, :count])

    def weights(self, worse: float) -> NDArray[np.float64]:
        """Return the weights nearest to equal ones (relative entropy) under which each baseline is
        worse than the adapter by exactly ``worse``."""
        gap = self.others.astype(float) - self.adapter[:, None] + worse
        found = minimize(
            lambda tilt: float(np.log(np.exp(gap @ tilt).mean())),
            np.zeros(gap.shape[1]),
            method="BFGS",
        )
        weights = np.exp(gap @ found.x)
        weights /= weights.sum()
        assert np.abs(weights @ gap).max() < 1e-4, "no weights make them so"
        return np.asarray(weights)


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities (messages, labels) and true labels."""

    source: str
    logprobs: NDArray[np.float64]
    truth: NDArray[np.int64]


def load_joint(run: Path | None) -> Joint:
    """Read a duel's answers, the adapter and the baselines; or make some of the demo's messages."""
    if run is None:
        return _demo_joint()
    with (run / DUEL_FOLDER / ANSWERS_NAME).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {
        entry["name"]: entry["kind"]
        for entry in json.loads((run / DUEL_FOLDER / "duel.json").read_text("utf-8"))["candidates"]
    }
    right = {
        name: np.array([row[name] == row["label"] for row in rows])
        for name, kind in kinds.items()
        if kind in {"adapter", "baseline"}
    }
    adapter = right.pop("adapter")
    source = f"{len(rows)} held-out messages, the adapter {adapter.mean():.1%}, " + ", ".join(
        f"{name} {hits.mean():.1%}" for name, hits in right.items()
    )
    return Joint(source, adapter, np.column_stack(list(right.values())))


def load_scores(run: Path | None) -> Scores:
    """Read an evaluation's scores on the hold-out; or make some of the demo's messages."""
    if run is None:
        demo = _demo()
        source = f"TF-IDF on {len(demo.truth)} of the demo's messages, out of fold"
        return Scores(source, np.log(np.maximum(demo.probabilities, 1e-12)), demo.truth)
    folder = run / EVALUATION_FOLDER
    labels = EVALUATION.read(folder).labels
    predictions = PREDICTIONS.read(folder)
    return Scores(
        f"the adapter on {len(predictions)} held-out messages",
        np.array([[found.logprobs[label] for label in labels] for found in predictions]),
        np.array([labels.index(str(found.label)) for found in predictions]),
    )


def calibrate_again(
    rng: np.random.Generator,
    scores: Scores,
    rows: int,
    by: ThresholdRule,
    precision: float,
    runs: int,
) -> tuple[int, float, float]:
    """Draw validation sets from the scores; return how often the threshold's precision over all of
    them is kept, the mean share that goes to review, and how often everything does."""
    best = scores.logprobs.argmax(axis=1) == scores.truth
    kept, review, everything = 0, 0.0, 0
    for _ in range(runs):
        drawn = rng.integers(0, len(best), size=rows)
        temperature = fit_temperature(scores.logprobs[drawn], scores.truth[drawn])
        confidence = temperature_softmax(scores.logprobs, temperature).max(axis=1)
        threshold = review_threshold(confidence[drawn], best[drawn], precision, floor=0.0, by=by)
        accepted = confidence >= threshold
        kept += not accepted.any() or best[accepted].mean() >= precision
        review += 1 - accepted.mean()
        everything += not accepted.any()
    return kept, review / runs, everything / runs


@dataclass(frozen=True, slots=True)
class _Demo:
    """The demo's messages as features, and the best cheap model's answers, out of fold."""

    words: csr_matrix
    letters: csr_matrix
    both: csr_matrix
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@functools.cache
def _demo() -> _Demo:
    lines = [
        json.loads(line)
        for name in ("train.jsonl", "holdout.jsonl")
        for line in (DEMO / name).read_text("utf-8").splitlines()
    ]
    texts, labels = [line["message"] for line in lines], [line["label"] for line in lines]
    names = sorted(set(labels))
    truth = np.array([names.index(label) for label in labels])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    letters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
    ).fit_transform(texts)
    both = hstack([words, letters], format="csr")
    best = LogisticRegression(C=10.0, max_iter=200)
    probabilities = cross_val_predict(best, both, truth, cv=_FOLDS, method="predict_proba")
    return _Demo(words, letters, both, truth, probabilities)


def _demo_joint() -> Joint:
    """The best cheap model stands for the adapter: what is real is who errs together with whom."""
    demo = _demo()
    models = (
        (RidgeClassifier(), demo.words),
        (RidgeClassifier(), demo.letters),
        (ComplementNB(), demo.words),
        (ComplementNB(), demo.letters),
        (ComplementNB(), demo.both),
        (RidgeClassifier(alpha=10.0), demo.both),
    )
    others = [
        cross_val_predict(model, features, demo.truth, cv=_FOLDS) == demo.truth
        for model, features in models
    ]
    adapter = demo.probabilities.argmax(axis=1) == demo.truth
    accuracies = ", ".join(f"{hits.mean():.1%}" for hits in (adapter, *others))
    source = f"cheap models on {len(adapter)} of the demo's messages, out of fold: {accuracies}"
    return Joint(source, adapter, np.column_stack(others))
