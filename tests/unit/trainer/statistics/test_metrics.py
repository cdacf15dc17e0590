"""Figures of merit agree with an independent implementation and with textbook values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from trainer.statistics.metrics import measure, wilson

LABELS = ("a", "b", "c", "d")


def test_figures_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, size=200)
    predicted = np.where(rng.random(200) < 0.7, truth, rng.integers(0, 4, size=200))
    found = measure(truth, predicted, LABELS)
    assert found.accuracy == pytest.approx((truth == predicted).mean())
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert np.array_equal(np.array(found.confusion), confusion_matrix(truth, predicted))
    wanted = precision_recall_fscore_support(truth, predicted)
    for at, label in enumerate(found.per_label):
        figures = (label.precision, label.recall, label.f1)
        assert figures == pytest.approx([row[at] for row in wanted[:3]])
        assert label.support == wanted[3][at]


def test_a_label_without_messages_does_not_count_in_the_mean() -> None:
    found = measure(np.array([0, 1]), np.array([0, 1]), LABELS)
    assert found.macro_f1 == 1.0
    assert found.per_label[3].f1 == 0.0


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (9, 10, 0.5958, 0.9821), (300, 330, 0.8731, 0.9356), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=2e-4)
