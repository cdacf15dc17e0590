"""From raw scores to predictions, by the worker's own rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.evaluation import Prediction
from worker.contract import Code, Decision, Thresholds, decide_from_codes, review_reasons

Floats = NDArray[np.float64]


def decide(logprobs: Floats, labels: Sequence[str], temperature: float) -> list[Decision]:
    """Decide each row (messages, labels) by the contract, as the worker does."""
    codes = {label: Code("", at) for at, label in enumerate(labels)}
    return [
        decide_from_codes(dict(enumerate(map(float, row))), codes, temperature) for row in logprobs
    ]


def predict(
    ids: Sequence[str],
    truth: Sequence[str | None],
    logprobs: Floats,
    in_set: Sequence[bool | None],
    *,
    labels: Sequence[str],
    temperature: float,
    limits: Thresholds,
) -> list[Prediction]:
    """Turn scores into prediction records, in the given order."""
    predictions = []
    decisions = decide(logprobs, labels, temperature)
    rows = zip(ids, truth, logprobs, in_set, decisions, strict=True)
    for message_id, label, row, inside, decision in rows:
        mass = decision.off_label_mass
        assert mass is not None
        predictions.append(
            Prediction(
                id=message_id,
                label=label,
                predicted=decision.label,
                confidence=decision.confidence,
                off_label_mass=mass,
                review=bool(review_reasons(decision, limits)),
                unconstrained_in_set=None if inside is None else bool(inside),
                logprobs=dict(zip(labels, map(float, row), strict=True)),
            )
        )
    return predictions


def logprobs_of(predictions: Sequence[Prediction], labels: Sequence[str]) -> Floats:
    """Return the raw scores as an array (messages, labels)."""
    scores = [[prediction.logprobs[label] for label in labels] for prediction in predictions]
    return np.array(scores).reshape(len(predictions), len(labels))
