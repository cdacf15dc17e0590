"""What an evaluation says of an adapter, read strictly: the gate's evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes

EVALUATION_NAME = "evaluation.json"
PREDICTIONS_NAME = "predictions.jsonl"
SCHEMA = "evaluation/1"

# What a store keeps: figures and ids. Whatever else a file holds may be a customer's words.
_KEPT = (
    "schema",
    "created_at",
    "limited",
    "adapter",
    "dataset",
    "labels",
    "examples",
    "accuracy",
    "accuracy_interval_95",
    "macro_f1",
    "per_label",
    "confusion",
    "outside_labels",
    "calibration",
    "coverage",
    "review",
    "engines",
)
_KEPT_OF_A_PREDICTION = (
    "id",
    "label",
    "predicted",
    "confidence",
    "off_label_mass",
    "review",
    "unconstrained_in_set",
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One hold-out message: its id, its true label and the adapter's."""

    id: str
    label: str
    predicted: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Which share of a label's ``support`` messages was found, 0 to 1."""

    label: str
    recall: float
    support: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """An evaluation's figures (shares are 0 to 1) and its predictions.

    ``record`` and ``kept_predictions`` (JSON Lines) are what a store keeps: nothing in them may
    hold a message's text.
    ``unconstrained_share`` is the share of free answers outside the label set, None where the
    evaluation did not look.
    """

    path: Path
    sha256: str
    adapter_digest: str
    limited: bool
    holdout_sha256: str
    openings: int
    labels: tuple[str, ...]
    examples: int
    accuracy: float
    accuracy_low: float
    macro_f1: float
    recalls: tuple[Recall, ...]
    outside: int
    unconstrained_share: float | None
    ece: float
    predictions: tuple[Prediction, ...]
    kept_predictions: bytes
    record: Mapping[str, Any]


def read_evidence(directory: Path) -> Evidence:
    """Read an evaluation's folder. Raises BadInput: which file, which key, and what to do."""
    path = directory / EVALUATION_NAME
    data = _read(path)
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error}): evaluate the adapter again") from error
    return make_evidence(path, record, sha256_bytes(data), directory / PREDICTIONS_NAME)


def make_evidence(path: Path, record: Any, sha256: str, predictions: Path) -> Evidence:
    """Check an evaluation's record and read its predictions; ``path`` is for the messages.

    Raises BadInput.
    """
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BadInput(f"{path}: not an {SCHEMA}: evaluate the adapter again")
    look = _Look(path, record)
    interval = look.at("accuracy_interval_95", list)
    if len(interval) != 2 or not all(isinstance(one, int | float) for one in interval):
        raise BadInput(f"{path}: 'accuracy_interval_95' must be two numbers")
    lines = _prediction_lines(predictions)
    return Evidence(
        path=path,
        sha256=sha256,
        adapter_digest=look.at("adapter.digest", str),
        limited=look.at("limited", bool),
        holdout_sha256=look.at("dataset.holdout_sha256", str),
        openings=look.at("dataset.openings", int),
        labels=tuple(str(one) for one in look.at("labels", list)),
        examples=look.at("examples", int),
        accuracy=look.number("accuracy"),
        accuracy_low=float(interval[0]),
        macro_f1=look.number("macro_f1"),
        recalls=_recalls(path, look.at("per_label", list)),
        outside=look.at("outside_labels.constrained", int),
        unconstrained_share=look.maybe_number("outside_labels.unconstrained_share"),
        ece=look.number("calibration.ece"),
        predictions=tuple(Prediction(one["id"], one["label"], one["predicted"]) for one in lines),
        kept_predictions=_without_texts(lines),
        record={key: record[key] for key in _KEPT if key in record},
    )


def _without_texts(lines: Sequence[Mapping[str, Any]]) -> bytes:
    kept = ({key: one[key] for key in _KEPT_OF_A_PREDICTION if key in one} for one in lines)
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in kept).encode("utf-8")


def _prediction_lines(path: Path) -> list[dict[str, Any]]:
    lines, seen = [], set()
    text = _read(path).decode("utf-8", errors="replace")
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        try:
            one = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: not JSON: evaluate the adapter again") from error
        if not isinstance(one, dict) or not all(
            isinstance(one.get(key), str) for key in ("id", "label", "predicted")
        ):
            raise BadInput(f"{path}:{number}: needs 'id', 'label' and 'predicted' as text")
        if one["id"] in seen:
            raise BadInput(f"{path}:{number}: the id {one['id']!r} occurs twice")
        seen.add(one["id"])
        lines.append(one)
    return lines


def _recalls(path: Path, entries: list[Any]) -> tuple[Recall, ...]:
    found = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise BadInput(f"{path}: 'per_label[{index}]' must be an object")
        look = _Look(path, entry, f"per_label[{index}].")
        found.append(Recall(look.at("label", str), look.number("recall"), look.at("support", int)))
    return tuple(found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}: clerk-trainer evaluate writes it") from error


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks values up by dotted paths, and says which file and key is at fault."""

    path: Path
    record: Mapping[str, Any]
    prefix: str = ""

    def at(self, key: str, kind: type[_T]) -> _T:
        value: Any = self.record
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise BadInput(f"{self.path}: lacks {self.prefix + key!r} ({kind.__name__})")

    def number(self, key: str) -> float:
        value = self.maybe_number(key)
        if value is None:
            raise BadInput(f"{self.path}: lacks {self.prefix + key!r} (a number)")
        return value

    def maybe_number(self, key: str) -> float | None:
        value: Any = self.record
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)
