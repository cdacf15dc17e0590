"""The hold-out is judged by the worker's own decision code, review included."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.dataset.examples import Example
from trainer.evaluation.decide import evaluate, prediction_records
from trainer.model.score import Scores
from worker.contract import Code, Thresholds

CODES = {"refund": Code("A", 65), "payment": Code("B", 66)}
SCORES = Scores(
    np.log(np.array([[0.9, 0.05], [0.45, 0.55], [0.3, 0.1], [0.2, 0.8]])),
    np.array([0, 0, 0, 1]),
)


def test_figures_review_and_the_accuracy_of_the_rest() -> None:
    found = evaluate(SCORES, CODES, 1.0, Thresholds(0.6, 0.5))
    assert [one.label for one in found.decisions] == ["refund", "payment", "refund", "payment"]
    assert found.figures.accuracy == 0.75
    assert found.review_share == 0.5  # one for its confidence, one for its off-label mass
    assert found.accepted_accuracy == 1.0
    assert found.mean_off_label_mass == pytest.approx((0.05 + 0 + 0.6 + 0) / 4)


def test_thresholds_that_are_off_review_nothing() -> None:
    assert evaluate(SCORES, CODES, 1.0, Thresholds(None, None)).review_share == 0.0


def test_when_all_goes_to_review_there_is_no_accuracy_of_the_rest() -> None:
    assert evaluate(SCORES, CODES, 1.0, Thresholds(1.0)).accepted_accuracy is None


def test_the_loss_and_the_predictions_are_those_of_the_raw_scores() -> None:
    assert SCORES.loss == pytest.approx(-np.log([0.9, 0.45, 0.3, 0.8]).mean())
    assert SCORES.predicted.tolist() == [0, 1, 0, 1]


def test_a_prediction_record_names_the_line_and_not_the_message() -> None:
    examples = [Example("secret", "refund", f"h.jsonl:{at}") for at in range(4)]
    found = evaluate(SCORES, CODES, 1.0, Thresholds(0.6, 0.5))
    record = prediction_records(examples, found.decisions)[0]
    assert record["where"] == "h.jsonl:0"
    assert "secret" not in str(record)
