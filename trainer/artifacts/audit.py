"""What an audit of a hold-out's labels leaves, beside the evaluation that it corrects."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.artifacts.evaluation import EvaluatedAdapter, EvaluatedDataset
from trainer.artifacts.files import Record, RecordFile
from trainer.artifacts.training import Interval


class Relabelled(Record):
    """How many audited messages of one given label have another true one (None: no label fits)."""

    given: str
    true: str | None
    messages: int


class AuditRecord(Record):
    """``audit.json``. ``label_error_rate`` is of the hold-out; ``accuracy`` is by the given labels,
    as the evaluation has it, ``corrected_accuracy`` by the true ones. Of the ``audited`` messages
    the adapter's answer is right and the given label wrong on ``gained``, the other way round on
    ``lost``."""

    schema_id: Literal["audit/1"] = Field("audit/1", alias="schema")
    created_at: str
    adapter: EvaluatedAdapter
    dataset: EvaluatedDataset
    seed: int
    examples: int
    audited: int
    label_errors: int
    label_error_rate: float
    label_error_rate_interval_95: Interval
    accuracy: float
    accuracy_interval_95: Interval
    corrected_accuracy: float
    corrected_accuracy_interval_95: Interval
    gained: int
    lost: int
    relabelled: tuple[Relabelled, ...]


AUDIT = RecordFile("audit.json", AuditRecord, "clerk-trainer audit")
