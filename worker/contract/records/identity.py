"""What a record refers to: its place in its source topic, an adapter, a taxonomy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.marks import Doc
from worker.contract.timestamps import parse_rfc3339

Headers = tuple[tuple[str, bytes | None], ...]
"""Kafka headers, in order; a name may occur more than once."""


def record_id(topic: str, partition: int, offset: int, cluster: str | None = None) -> str:
    """Return the id of whatever is made of an input record: topic-partition-offset.

    It is the same for every delivery of the same message, so a consumer can deduplicate by it. Two
    clusters that mirror each other under the same names give one offset to different messages:
    where the worker is told its ``cluster``, that stands before it, with a slash, which no topic's
    name has.
    """
    place = f"{topic}-{partition}-{offset}"
    return f"{cluster}/{place}" if cluster else place


@dataclass(frozen=True, slots=True)
class Source:
    """Where the message was read from."""

    topic: str
    partition: int
    offset: int
    timestamp: Annotated[str | None, Doc("Timestamp of the input record, RFC 3339 in UTC.")]
    cluster: Annotated[
        str | None,
        Doc("Name of the Kafka cluster, where the worker is told it; then the id begins with it."),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """The adapter that made this label."""

    name: str
    digest: Annotated[str, Doc("SHA-256 of the adapter's manifest.")]


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """The adapter that made this label, and how it was served."""

    name: str
    digest: Annotated[str, Doc("SHA-256 of the adapter's manifest.")]
    precision: Annotated[
        str,
        Doc(
            "What the model computed in: fp32, bf16, fp16 or int8, or vLLM's name of a "
            "quantization. The same digest in another precision gives other labels to some "
            "messages. Of a cascade, that of the stage that answered."
        ),
    ]


@dataclass(frozen=True, slots=True)
class TaxonomyRef:
    """The label set this label comes from."""

    name: str
    version: str
    digest: Annotated[str, Doc("SHA-256 over every label and its description.")]


def check_identity(id_: str, source: Source) -> None:
    """Raise ValueError unless a record's id is that of its source, and its timestamp is a time.

    What stands there is not quoted: in a field of a foreign record it may be a message's text.
    """
    if id_ != record_id(source.topic, source.partition, source.offset, source.cluster):
        raise ValueError("id is not that of its source, topic-partition-offset")
    if source.timestamp is not None:
        check_time("source.timestamp", source.timestamp)


def check_time(where: str, text: str) -> None:
    """Raise ValueError, naming the field, unless ``text`` is a time in RFC 3339."""
    try:
        parse_rfc3339(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
