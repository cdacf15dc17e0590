"""Records on their way through the worker: made, completed, and read back once published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tests.support.toy_adapter import toy_serving_adapter
from worker.core.assignment import CompletedRecord
from worker.core.labeller import ServingAdapter
from worker.records.types import Outcome, Outgoing, Record, TopicPartition

# What JSON can carry: also halves of surrogate pairs, which ``st.text`` leaves out.
any_text = st.lists(
    st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs"]), max_size=5),
    max_size=8,
).map("".join)


def toy_record(value: bytes | None = b'{"message": "hi"}', **changes: Any) -> Record:
    """A record of partition 3 of the topic ``in``, at offset 42."""
    fields: dict[str, Any] = {
        "source": TopicPartition("in", 3),
        "offset": 42,
        "key": b"customer-7",
        "value": value,
        "headers": (("trace", b"\xff\x00"), ("none", None)),
        "timestamp_ms": 1_700_000_000_123,
    }
    return Record(**{**fields, **changes})


@cache
def default_adapter() -> ServingAdapter:
    """The adapter that completed records are by."""
    return toy_serving_adapter()


def toy_completed(record: Record, outcome: Outcome, *rest: Any, **changes: Any) -> CompletedRecord:
    """A completed record of the toy adapter."""
    return CompletedRecord(record, outcome, default_adapter(), *rest, **changes)


@dataclass(frozen=True, slots=True)
class Published:
    """One record of a sink topic, in a form that is easy to compare."""

    topic: str
    id: str
    label: str | None = None
    reason: str | None = None


def read_output(outgoing: Outgoing) -> Published:
    """Read an output, a review or a dead letter."""
    if outgoing.topic != "dead":
        assert outgoing.value is not None
        value = json.loads(outgoing.value)
        return Published(outgoing.topic, value["id"], label=value["label"])
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in outgoing.headers}
    source = "-".join(headers[f"clerk.source.{part}"] for part in ("topic", "partition", "offset"))
    return Published("dead", source, reason=headers["clerk.reason"])
