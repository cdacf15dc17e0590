"""What the cost of an adapter came to, and from which inputs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.artifacts.files import Record, RecordFile


class CostInput(Record):
    """One input: ``source`` says whether a flag or the file gave it, or what measured it."""

    name: str
    value: Any
    unit: str
    source: str


class Volume(Record):
    """What serving costs at one volume, a month; ``break_even_days`` is None where it never
    comes."""

    messages_per_month: float
    replicas: int
    serving: float
    serving_per_thousand: float
    hosted: float
    saving: float
    break_even_days: float | None


class CostRecord(Record):
    """``cost.json``. Money is in ``currency``; where a figure is None, the field of its name
    with ``_reason`` says why. ``trainer.cost`` explains the figures."""

    schema_id: Literal["cost/1"] = Field("cost/1", alias="schema")
    created_at: str
    currency: str
    inputs: tuple[CostInput, ...]
    training: float
    labelling: float
    one_off: float
    per_thousand_messages: float
    hosted_per_thousand: float
    planned: Volume
    break_even_messages: float | None
    break_even_days: float | None
    break_even_reason: str | None
    pays_from_messages_per_month: float | None
    pays_from_reason: str | None
    by_volume: tuple[Volume, ...]


COST = RecordFile("cost.json", CostRecord, "clerk-trainer cost")
