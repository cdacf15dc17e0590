"""Dead letters: the record as it came, with headers that say why it has no label.

All that is known of the failure is in headers, in one of two styles: the project's own, or that
of Kafka Connect, for tools that were made for it.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from worker.contract.errors import RecordRefused, RejectReason
from worker.contract.records.identity import record_id

HeaderStyle = Literal["clerk", "connect"]
Stage = Literal["decode", "engine", "encode"]
"""Where a record's way ended: before the engine, in it, or after it."""

OMITTED_BYTES = "clerk.payload.omitted.bytes"
"""Header of a dead letter without key, value and headers of the record's own: their size."""

_CONNECT = "__connect.errors."
CONNECTOR = (f"{_CONNECT}connector.name", b"filing-clerk")
"""The header by which Kafka Connect's style is known to be a worker's."""

_NAMES: Mapping[HeaderStyle, Mapping[str, str]] = {
    "clerk": {
        "reason": "clerk.reason",
        "stage": "clerk.stage",
        "error": "clerk.error",
        "topic": "clerk.source.topic",
        "partition": "clerk.source.partition",
        "offset": "clerk.source.offset",
    },
    "connect": {
        "topic": f"{_CONNECT}topic",
        "partition": f"{_CONNECT}partition",
        "offset": f"{_CONNECT}offset",
        "stage": f"{_CONNECT}stage",
        "reason": f"{_CONNECT}exception.class.name",
        "error": f"{_CONNECT}exception.message",
    },
}
_OF_BOTH = {
    "timestamp_ms": "clerk.source.timestamp",
    "attempts": "clerk.attempt",
    "worker_version": "clerk.worker.version",
    "adapter_digest": "clerk.adapter.digest",
}
_CONNECT_ALONE = {
    CONNECTOR[0]: CONNECTOR[1].decode(),
    f"{_CONNECT}task.id": "0",
    f"{_CONNECT}class.name": "worker.core.labeller.Labeller",
}

_CLUSTER = "clerk.source.cluster"

DEAD_LETTER_HEADERS = frozenset(
    {name for names in _NAMES.values() for name in names.values()}
    | set(_OF_BOTH.values())
    | set(_CONNECT_ALONE)
    | {OMITTED_BYTES, _CLUSTER}
)
"""Every header that a dead letter may get, in whichever style."""


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

    def headers(self, style: HeaderStyle = "clerk") -> tuple[tuple[str, bytes], ...]:
        """Return the headers that are added to those of the record."""
        names = {**_NAMES[style], **_OF_BOTH}
        texts = {name: self._text(field, style) for field, name in names.items()}
        if style == "connect":
            texts |= _CONNECT_ALONE
        if self.cluster:
            texts[_CLUSTER] = self.cluster
        return tuple((name, text.encode()) for name, text in texts.items())

    def _text(self, field: str, style: HeaderStyle) -> str:
        value = getattr(self, field)
        if value is None:
            return ""
        return str(value).upper() if style == "connect" and field == "stage" else str(value)


def read_dead_letter(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
    """Read a dead letter's headers, in either style. Raises RecordRefused.

    Where both styles occur, the later headers count: a sender may have copied the first set.
    """
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
    last = next((name for name, _ in reversed(headers) if name in _STYLE_OF), None)
    if last is None:
        raise _refused("has none of the headers of one")
    names = {**_NAMES[_STYLE_OF[last]], **_OF_BOTH}
    if missing := sorted(name for name in names.values() if name not in found):
        raise _refused(f"lacks the header {missing[0]}")
    texts = {field: found[name] for field, name in names.items()}
    reason, stage = texts["reason"], texts["stage"].lower()
    if reason not in typing.get_args(RejectReason) or stage not in typing.get_args(Stage):
        raise _refused(f"has the reason {reason!r} at the stage {stage!r}, and one is not known")
    numbers = {field: _number(names[field], texts[field]) for field in _NUMBERS}
    return DeadLetter(
        reason=cast("RejectReason", reason),
        stage=cast("Stage", stage),
        error=texts["error"],
        topic=texts["topic"],
        partition=numbers["partition"],
        offset=numbers["offset"],
        timestamp_ms=(
            _number(names["timestamp_ms"], texts["timestamp_ms"]) if texts["timestamp_ms"] else None
        ),
        attempts=numbers["attempts"],
        worker_version=texts["worker_version"],
        adapter_digest=texts["adapter_digest"],
        cluster=found.get(_CLUSTER) or None,
    )


_STYLE_OF: Mapping[str, HeaderStyle] = {names["reason"]: style for style, names in _NAMES.items()}
_NUMBERS = ("partition", "offset", "attempts")


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _refused(f"the header {name} is no whole number") from None


def _refused(problem: str) -> RecordRefused:
    return RecordRefused("the dead letter", problem)
