"""What a cascade's run folder says of how it was put together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.artifacts.files import Record, RecordFile
from trainer.artifacts.training import AdapterName, DatasetName, Interval


class CascadeRow(Record):
    """One margin, tried on validation: from which confidence on the first stage answers (None:
    nothing was shown to be harmless), the shares that each stage answers and that a person sees,
    accuracy, that of what nobody looks at (None: nothing), whether the first stage could be shown
    to keep the promise of it, and messages a second and the cost of a message against the last
    stage alone, by the stages' own measured speeds (None where one was not measured)."""

    margin: float
    sure_from: float | None
    first_share: float
    last_share: float
    review_share: float
    accepted_precision: float | None = None
    promise_shown: bool = True
    accuracy: float
    accuracy_interval_95: Interval
    p_value: float | None
    messages_per_s: float | None
    relative_cost: float | None


class AloneRow(Record):
    """A stage alone, with its own thresholds, on the same messages."""

    adapter: AdapterName
    review_share: float | None = None
    accepted_precision: float | None = None
    accuracy: float
    accuracy_interval_95: Interval
    messages_per_s: float | None


class CascadeRecord(Record):
    """``cascade.json``. ``holdout_accuracy`` is of the chosen margin alone, on the hold-out that
    the stages' evaluations had opened; ``worth_it`` says whether each stage answers enough."""

    schema_id: Literal["cascade/1"] = Field("cascade/1", alias="schema")
    created_at: str
    dataset: DatasetName
    validation_messages: int
    margin: float
    alone: tuple[AloneRow, ...]
    rows: tuple[CascadeRow, ...]
    chosen: CascadeRow | None
    worth_it: bool
    verdict: str
    messages_needed: int | None
    adapter: AdapterName | None
    holdout_accuracy: float | None
    holdout_accuracy_interval_95: Interval | None
    holdout_last_alone: float | None


CASCADE = RecordFile("cascade.json", CascadeRecord, "clerk-trainer cascade")
