"""Probes that people wrote: messages with labels, of which those that an adapter gets right, and
is sure of, are what workers try it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trainer.dataset.folder import Example
from trainer.errors import BadInput
from trainer.evaluation.engines import ScoresByKey, read_table
from trainer.evaluation.outputs import outputs_of
from worker.contract import Manifest, Probe, review_reasons
from worker.contract.taxonomy import label_name
from worker.contract.verify import ProbeFile


def read_written(path: Path, labels: Sequence[str]) -> tuple[Example, ...]:
    """Read messages with their labels from JSON Lines or CSV with the fields ``message`` and
    ``label``. Raises BadInput with file and line; the message is not in it."""
    found: dict[str, Example] = {}
    for number, row in read_table(path):
        message, label = _text(row, "message"), label_name(_text(row, "label"))
        if not message or not label:
            raise BadInput(f"{path}: line {number} has no text in 'message' or no 'label'")
        if label not in labels:
            raise BadInput(
                f"{path}: line {number} has the label {label!r}, which the adapter lacks: it has "
                f"{', '.join(labels)}"
            )
        found.setdefault(message, Example(str(number), message, label))
    if not found:
        raise BadInput(f"{path}: holds no message")
    return tuple(found.values())


def pick_probes(manifest: Manifest, written: Sequence[Example], scores: ScoresByKey) -> ProbeFile:
    """Return those of the ``written`` messages, scored under ``p:<id>``, that get their label and
    are far from review, so that arithmetic that rounds differently gives them the same one."""
    outputs = outputs_of(manifest)
    logprobs = np.array([scores[f"p:{example.id}"][0] for example in written])
    decisions = outputs.decide(
        logprobs.reshape(-1, len(outputs.names)), manifest.calibration.temperature
    )
    kept = tuple(
        Probe(example.message, example.label)
        for example, decision in zip(written, decisions, strict=True)
        if decision.label == example.label and not review_reasons(decision, manifest.thresholds)
    )
    return ProbeFile(manifest.digest, "written", kept)


def _text(row: Mapping[str, object], field: str) -> str:
    value = row.get(field)
    return value.strip() if isinstance(value, str) else ""
