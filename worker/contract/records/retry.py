"""A message that waits on the retry topic: the record as it came, with headers that say the rest.

Value, key and headers are the input record's; the headers here are added, and taken away again
when it is read. They mean something on the retry topic alone: on an input topic they are a
stranger's.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.contract.errors import RecordRefused
from worker.contract.records.identity import record_id

RetryReason = Literal["deadline_exceeded", "engine_rejected"]
"""Why a message may be tried again later: what the engine did, and not what the message is."""

RETRY_REASONS: tuple[RetryReason, ...] = typing.get_args(RetryReason)

LONGEST_DELAY_S = 24 * 60 * 60
"""A message waits no longer than this for its next attempt."""

MOST_ATTEMPTS = 100
"""Delayed attempts at one message, at most."""

_NAMES = {
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

_CLUSTER = "clerk.retry.source.cluster"

NEEDED_RETRY_HEADERS = frozenset(_NAMES.values())
"""Every header that a record of the retry topic has beside the input record's own."""

RETRY_HEADERS = NEEDED_RETRY_HEADERS | {_CLUSTER}
"""Those, and one that it has where the worker was told its cluster's name."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NUMBER = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Retry:
    """Where a message was read first, and its next attempt.

    ``timestamp_ms`` is the input record's (Unix time), None where it had none. ``attempt`` counts
    the delayed attempts, this one included, from 1; it is not made before ``not_before_ms`` (Unix
    time). ``reason`` is that of the last failure, ``first_failed_ms`` when the first one was
    written, ``engine_attempts`` how often the engine was asked by now. ``cluster`` is the input's,
    where the worker was told its name.
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
        told = tuple((name, self._text(field).encode()) for field, name in _NAMES.items())
        return (*told, (_CLUSTER, self.cluster.encode())) if self.cluster else told

    def history(self) -> tuple[tuple[str, bytes], ...]:
        """Return those of them that a dead letter has too: what was tried before it."""
        kept = ("attempt", "first_failed_ms")
        return tuple((_NAMES[field], self._text(field).encode()) for field in kept)

    def _text(self, field: str) -> str:
        value = getattr(self, field)
        return "" if value is None else str(value)


def read_retry(headers: Sequence[tuple[str, bytes | None]]) -> Retry:
    """Read the headers of a record of the retry topic. Raises RecordRefused, naming the header."""
    found = dict(headers)  # of two headers of one name the later one is the worker's
    if missing := sorted(name for name in _NAMES.values() if name not in found):
        raise _refused(f"lacks the header {missing[0]}")
    texts = {
        field: (found[name] or b"").decode("utf-8", "replace") for field, name in _NAMES.items()
    }
    if not _TOPIC.fullmatch(texts["topic"]):
        raise _refused(f"the header {_NAMES['topic']} is no name of a topic")
    reason = next((known for known in RETRY_REASONS if known == texts["reason"]), None)
    if reason is None:
        raise _refused(f"the header {_NAMES['reason']} is no reason to try again")
    timestamp = _number(texts, "timestamp_ms", -(1 << 63)) if texts["timestamp_ms"] else None
    return Retry(
        topic=texts["topic"],
        partition=_number(texts, "partition", 0, (1 << 31) - 1),
        offset=_number(texts, "offset", 0),
        timestamp_ms=timestamp,
        attempt=_number(texts, "attempt", 1, MOST_ATTEMPTS),
        not_before_ms=_number(texts, "not_before_ms", 0),
        reason=reason,
        first_failed_ms=_number(texts, "first_failed_ms", 0),
        engine_attempts=_number(texts, "engine_attempts", 0),
        cluster=(found.get(_CLUSTER) or b"").decode("utf-8", "replace") or None,
    )


def _number(texts: Mapping[str, str], field: str, least: int, most: int = (1 << 63) - 1) -> int:
    text = texts[field]
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise _refused(f"the header {_NAMES[field]} is no whole number within its bounds")
    return int(text)


def _refused(problem: str) -> RecordRefused:
    return RecordRefused("the record of the retry topic", problem)
