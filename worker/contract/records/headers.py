"""Dead letters and records of the retry topic: the input record with added headers."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worker.contract.errors import RecordRefused, RejectReason
from worker.contract.records.identity import REPLAY_HEADERS, Headers, record_id
from worker.contract.records.output import MAIN_ADAPTER_DIGEST, MAIN_LABEL

Stage = Literal["decode", "engine", "encode"]
"""Where the record failed: before the engine, in it, or after it."""

OMITTED_BYTES = "clerk.payload.omitted.bytes"
"""Header of a dead letter that lacks the record's key, value and headers: their size."""

_LETTER_NAMES = {
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

_LETTER_CLUSTER = "clerk.source.cluster"

DEAD_LETTER_HEADERS = frozenset({*_LETTER_NAMES.values(), OMITTED_BYTES, _LETTER_CLUSTER})
"""Every header that a dead letter may get."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a record has no label.

    ``error`` is one line without message text. ``timestamp_ms`` is the input record's (Unix time),
    if it had one. ``attempts`` counts the tries in the engine. ``cluster`` is the name of the
    input's cluster, if it is configured.
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
        """The id of the output record that this message would have had."""
        return record_id(self.topic, self.partition, self.offset, self.cluster)

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers that are added to those of the record."""
        return _to_headers(self, _LETTER_NAMES, _LETTER_CLUSTER)


def read_dead_letter(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
    """Read a dead letter's headers. Raises RecordRefused."""
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
    if _LETTER_NAMES["reason"] not in found:
        raise _letter_refused("has no headers of a dead letter")
    if missing := sorted(name for name in _LETTER_NAMES.values() if name not in found):
        raise _letter_refused(f"lacks the header {missing[0]}")
    values: dict[str, Any] = {field: found[name] for field, name in _LETTER_NAMES.items()}
    reason, stage = values["reason"], values["stage"]
    if reason not in typing.get_args(RejectReason) or stage not in typing.get_args(Stage):
        raise _letter_refused(f"has an unknown reason or stage: {reason!r}, {stage!r}")
    for field in _NUMBERS:
        values[field] = _whole_number(_LETTER_NAMES[field], values[field])
    if timestamp := values["timestamp_ms"]:
        values["timestamp_ms"] = _whole_number(_LETTER_NAMES["timestamp_ms"], timestamp)
    else:
        values["timestamp_ms"] = None
    return DeadLetter(**values, cluster=found.get(_LETTER_CLUSTER) or None)


_NUMBERS = ("partition", "offset", "attempts")


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _letter_refused(f"the header {name} is not a whole number") from None


def _letter_refused(problem: str) -> RecordRefused:
    return RecordRefused("the dead letter", problem)


# --- The retry topic ---
#
# The worker adds these headers to the input record and removes them when it reads it back. They
# count on the retry topic alone: on an input topic a producer could forge them.


RetryReason = Literal["deadline_exceeded", "engine_rejected"]
"""Reasons that depend on the engine's state rather than on the message."""

RETRY_REASONS: tuple[RetryReason, ...] = typing.get_args(RetryReason)

LONGEST_DELAY_S = 24 * 60 * 60
"""The longest wait before the next attempt."""

MOST_ATTEMPTS = 100
"""The largest number of delayed attempts at one message."""

_RETRY_NAMES = {
    "topic": "clerk.retry.source.topic",
    "partition": "clerk.retry.source.partition",
    "offset": "clerk.retry.source.offset",
    "timestamp_ms": "clerk.retry.source.timestamp",
    "attempt": "clerk.retry.attempt",
    "not_before_ms": "clerk.retry.not.before",
    "reason": "clerk.retry.reason",
    "first_failed_ms": "clerk.retry.first.failed",
    "engine_attempts": "clerk.retry.engine.attempts",
}

_RETRY_CLUSTER = "clerk.retry.source.cluster"

NEEDED_RETRY_HEADERS = frozenset(_RETRY_NAMES.values())
"""Every header that is always added."""

RETRY_HEADERS = NEEDED_RETRY_HEADERS | {_RETRY_CLUSTER}
"""Every header that may be added."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
# What Kafka can hold: partitions are 32-bit integers, offsets and timestamps 64-bit.
_BOUNDS = {
    "timestamp_ms": (-(1 << 63), (1 << 63) - 1),
    "partition": (0, (1 << 31) - 1),
    "offset": (0, (1 << 63) - 1),
    "attempt": (1, MOST_ATTEMPTS),
    "not_before_ms": (0, (1 << 63) - 1),
    "first_failed_ms": (0, (1 << 63) - 1),
    "engine_attempts": (0, (1 << 63) - 1),
}


@dataclass(frozen=True, slots=True)
class Retry:
    """The input record that a message comes from, and its next attempt.

    ``timestamp_ms`` is the input record's (Unix time), if it had one. ``attempt`` is the number of
    this delayed attempt, from 1, which must not start before ``not_before_ms`` (Unix time).
    ``reason`` is that of the last failure, ``first_failed_ms`` the time of the first one,
    ``engine_attempts`` the number of tries in the engine so far. ``cluster`` is the name of the
    input's cluster, if it is configured.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    attempt: int
    not_before_ms: int
    reason: RetryReason
    first_failed_ms: int
    engine_attempts: int
    cluster: str | None = None

    @property
    def id(self) -> str:
        """The id of the message's result: that of the input record."""
        return record_id(self.topic, self.partition, self.offset, self.cluster)

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers that are added to those of the input record."""
        return _to_headers(self, _RETRY_NAMES, _RETRY_CLUSTER)

    def history(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers that a dead letter keeps: the earlier attempts."""
        kept = (_RETRY_NAMES["attempt"], _RETRY_NAMES["first_failed_ms"])
        return tuple(header for header in self.headers() if header[0] in kept)


def _to_headers(
    record: DeadLetter | Retry, names: Mapping[str, str], cluster: str
) -> tuple[tuple[str, bytes], ...]:
    """Return a record's fields as headers; the name of its cluster only if there is one."""
    values = {name: getattr(record, field) for field, name in names.items()}
    texts = {name: "" if value is None else str(value) for name, value in values.items()}
    if record.cluster:
        texts[cluster] = record.cluster
    return tuple((name, text.encode()) for name, text in texts.items())


def read_retry(headers: Sequence[tuple[str, bytes | None]]) -> Retry:
    """Read the headers of a record of the retry topic. Raises RecordRefused, naming the header."""
    found = dict(headers)  # of two headers with the same name the worker's is the later one
    if missing := sorted(name for name in _RETRY_NAMES.values() if name not in found):
        raise _retry_refused(f"lacks the header {missing[0]}")
    texts = {
        field: (found[name] or b"").decode("utf-8", "replace")
        for field, name in _RETRY_NAMES.items()
    }
    if not _TOPIC.fullmatch(texts["topic"]):
        raise _retry_refused(f"the header {_RETRY_NAMES['topic']} is not a topic's name")
    if texts["reason"] not in RETRY_REASONS:
        raise _retry_refused(f"the header {_RETRY_NAMES['reason']} is not a reason for a retry")
    values: dict[str, Any] = dict(texts)
    if not texts["timestamp_ms"]:
        values["timestamp_ms"] = None
    for field, (least, most) in _BOUNDS.items():
        if (text := values[field]) is None:
            continue
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise _retry_refused(f"the header {_RETRY_NAMES[field]} is not an integer in bounds")
        values[field] = int(text)
    cluster = (found.get(_RETRY_CLUSTER) or b"").decode("utf-8", "replace") or None
    return Retry(**values, cluster=cluster)


def _retry_refused(problem: str) -> RecordRefused:
    return RecordRefused("the record of the retry topic", problem)


_OURS = DEAD_LETTER_HEADERS | {MAIN_LABEL, MAIN_ADAPTER_DIGEST} | REPLAY_HEADERS | RETRY_HEADERS


def without_worker_headers(headers: Headers) -> Headers:
    """Return the sender's own headers: a record that comes from another worker's topic may carry
    that worker's."""
    if not any(name in _OURS for name, _ in headers):
        return headers  # the usual case, without a copy
    return tuple(header for header in headers if header[0] not in _OURS)
