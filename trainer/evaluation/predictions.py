"""Prediction files: what was answered for each message, by its id and without any text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import BadInput
from worker.contract import Code, Decision, Thresholds, decide_from_codes, review_reasons

Floats = NDArray[np.float64]

PREDICTIONS = "predictions.jsonl"
VALIDATION = "validation_predictions.jsonl"
OUT_OF_SCOPE = "out_of_scope_predictions.jsonl"
BATCHES = "batch_predictions.jsonl"
VLLM = "vllm_predictions.jsonl"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One message's answer.

    ``label`` is the true one (None: out of scope), ``logprobs`` the raw natural log-probability
    of each label's code over the whole vocabulary, ``unconstrained_in_set`` whether the most
    likely token of all was a code (None where an engine does not tell).
    """

    id: str
    label: str | None
    predicted: str
    confidence: float
    off_label_mass: float
    review: bool
    unconstrained_in_set: bool | None
    logprobs: dict[str, float]


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
    found = []
    rows = zip(ids, truth, logprobs, in_set, decide(logprobs, labels, temperature), strict=True)
    for name, label, row, inside, decision in rows:
        mass = decision.off_label_mass
        assert mass is not None
        found.append(
            Prediction(
                id=name,
                label=label,
                predicted=decision.label,
                confidence=decision.confidence,
                off_label_mass=mass,
                review=bool(review_reasons(decision, limits)),
                unconstrained_in_set=None if inside is None else bool(inside),
                logprobs=dict(zip(labels, map(float, row), strict=True)),
            )
        )
    return found


def logprobs_of(predictions: Sequence[Prediction], labels: Sequence[str]) -> Floats:
    """Return the raw scores as an array (messages, labels)."""
    return np.array([[one.logprobs[label] for label in labels] for one in predictions]).reshape(
        len(predictions), len(labels)
    )


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON line a prediction."""
    write_lines(path, [asdict(one) for one in predictions])


def read_predictions(path: Path) -> list[Prediction]:
    """Read them back. Raises BadInput with the file and line at fault."""
    found = []
    for number, record in enumerate(read_lines(path), 1):
        try:
            found.append(Prediction(**record))
        except TypeError as error:
            raise BadInput(f"{path}: line {number} is no prediction: evaluate again") from error
    return found


def write_lines(path: Path, records: Sequence[Any]) -> None:
    """Write JSON Lines; the folder they are in becomes visible only when it is complete."""
    lines = [json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records]
    path.write_text("".join(lines), encoding="utf-8")


def read_lines(path: Path) -> list[Any]:
    """Read JSON Lines. Raises BadInput."""
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON Lines: {error}") from error
