"""Two engines agree if every difference is a near tie or rounding."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trainer.artifacts.evaluation import WorkerAnswer
from trainer.errors import ProofFailed
from trainer.evaluation.engines import WorkerAnswers, scores_of
from trainer.evaluation.predictions import (
    Outputs,
    compare_answers,
    predict,
    verify_agreement,
)
from worker.contract import Thresholds

LABELS = ("a", "b")
PREDICTIONS = predict(
    ["1", "2"],
    ["a", "b"],
    np.log([[0.8, 0.1], [0.48, 0.47]]),
    [True, True],
    outputs=Outputs(LABELS),
    temperature=1.0,
    limits=Thresholds(None),
)


def answer(message_id: str, a: float) -> WorkerAnswer:
    return WorkerAnswer(
        id=message_id,
        label="a",
        predicted="a" if a >= 0.5 else "b",
        confidence=max(a, 1 - a),
        off_label_mass=0.0,
        scores={"a": a, "b": 1 - a},
        seconds_alone=None,
    )


def test_a_tie_that_falls_the_other_way_is_counted_and_allowed() -> None:
    found = compare_answers(
        PREDICTIONS, [answer("1", 8 / 9), answer("2", 0.49)], Outputs(LABELS), 1.0
    )
    assert found.labels_differ == 1
    assert found.widest_tie == pytest.approx(0.01 / 0.95)
    assert found.max_confidence_difference == pytest.approx(0.48 / 0.95 - 0.49)
    verify_agreement(found)


def test_another_label_that_is_not_a_tie_fails_the_proof() -> None:
    found = compare_answers(PREDICTIONS, [answer("1", 0.3), answer("2", 0.5)], Outputs(LABELS), 1.0)
    with pytest.raises(ProofFailed, match="disagree on the labels of 1 of 2"):
        verify_agreement(found)
    with pytest.raises(ProofFailed, match="confidences differ"):
        verify_agreement(
            found.model_copy(update={"widest_tie": 0.0, "max_confidence_difference": 0.2})
        )


def test_raw_scores_come_back_from_a_workers_calibrated_ones() -> None:
    raw = np.log([0.7, 0.2])
    weights = np.exp(raw / 2)
    scores = dict(zip(LABELS, weights / weights.sum(), strict=True))

    manifest: Any = SimpleNamespace(
        taxonomy=SimpleNamespace(names=LABELS),
        calibration=SimpleNamespace(temperature=2.0),
        head=None,
    )

    answers = WorkerAnswers({"h:1": {"scores": scores, "off_label_mass": 0.1}}, {}, 1.0)
    row, inside = scores_of(answers, manifest)["h:1"]
    assert row == pytest.approx(raw, abs=1e-9)
    assert math.isclose(np.exp(row).sum(), 0.9)
    assert inside is None
