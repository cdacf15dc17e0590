"""Dead letters: the record as it came, with headers that say why it has no label."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from worker.contract.errors import RecordRefused, RejectReason
from worker.contract.records.identity import record_id

Stage = Literal["decode", "engine", "encode"]
"""Where a record's way ended: before the engine, in it, or after it."""

OMITTED_BYTES = "clerk.payload.omitted.bytes"
"""Header of a dead letter without key, value and headers of the record's own: their size."""

_NAMES = {
    "reason": "clerk.reason",
    "stage": "clerk.stage",
    "error": "clerk.error",
    "topic": "clerk.source.topic",
    "partition": "clerk.source.partition",
    "offset": "clerk.source.offset",
    "timestamp_ms": "clerk.source.timestamp",
    "attempts": "clerk.attempt",
    "worker_version": "clerk.worker.version",
    "adapter_digest": "clerk.adapter.digest",
}

_CLUSTER = "clerk.source.cluster"

DEAD_LETTER_HEADERS = frozenset({*_NAMES.values(), OMITTED_BYTES, _CLUSTER})
"""Every header that a dead letter may get."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a record has no label.

    ``error`` is one line for people and holds no message text. ``timestamp_ms`` is the input
    record's (Unix time), None where it had none. ``attempts`` counts the tries in the engine.
    ``cluster`` is the input's, where the worker was told its name.
    """

    reason: RejectReason
    stage: Stage
    error: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    attempts: int
    worker_version: str
    adapter_digest: str
    cluster: str | None = None

    @property
    def id(self) -> str:
        """The id that the record's output would have had."""
        return record_id(self.topic, self.partition, self.offset, self.cluster)

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers that are added to those of the record."""
        values = {name: getattr(self, field) for field, name in _NAMES.items()}
        texts = {name: "" if value is None else str(value) for name, value in values.items()}
        if self.cluster:
            texts[_CLUSTER] = self.cluster
        return tuple((name, text.encode()) for name, text in texts.items())


def read_dead_letter(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
    """Read a dead letter's headers. Raises RecordRefused."""
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
    if _NAMES["reason"] not in found:
        raise _refused("has none of the headers of one")
    if missing := sorted(name for name in _NAMES.values() if name not in found):
        raise _refused(f"lacks the header {missing[0]}")
    texts = {field: found[name] for field, name in _NAMES.items()}
    reason, stage = texts["reason"], texts["stage"]
    if reason not in typing.get_args(RejectReason) or stage not in typing.get_args(Stage):
        raise _refused(f"has the reason {reason!r} at the stage {stage!r}, and one is not known")
    numbers = {field: _number(_NAMES[field], texts[field]) for field in _NUMBERS}
    return DeadLetter(
        reason=cast("RejectReason", reason),
        stage=cast("Stage", stage),
        error=texts["error"],
        topic=texts["topic"],
        partition=numbers["partition"],
        offset=numbers["offset"],
        timestamp_ms=(
            _number(_NAMES["timestamp_ms"], texts["timestamp_ms"])
            if texts["timestamp_ms"]
            else None
        ),
        attempts=numbers["attempts"],
        worker_version=texts["worker_version"],
        adapter_digest=texts["adapter_digest"],
        cluster=found.get(_CLUSTER) or None,
    )


_NUMBERS = ("partition", "offset", "attempts")


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _refused(f"the header {name} is no whole number") from None


def _refused(problem: str) -> RecordRefused:
    return RecordRefused("the dead letter", problem)
