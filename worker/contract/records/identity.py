"""Parts shared by the records: id and source, adapter, taxonomy, replay."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from worker.contract.codec import LEAVE_OUT_EMPTY, Doc, Pattern, decode, encode
from worker.contract.errors import RecordRefused
from worker.contract.timestamps import parse_rfc3339

_R = TypeVar("_R")


def to_json(record: Any) -> bytes:
    """Return a record's JSON on one line. Raises ValueError for NaN and infinities."""
    return json.dumps(
        encode(record), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode("utf-8")


def read_json(
    kind: type[_R], value: bytes | str | None, what: str, check: Callable[[_R], None] | None = None
) -> _R:
    """Build a record of ``kind`` from its JSON. ``what`` names it in errors.

    Unknown keys are ignored: they may be added within a schema version. ``check`` raises ValueError
    for rules that types cannot express. Raises RecordRefused.
    """
    if value is None:
        raise RecordRefused(what, "there is no value")
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        # The parser's message may quote the text.
        raise RecordRefused(what, "the value is not JSON") from None
    try:
        record = decode(kind, data, "the value", skip_unknown=True)
        assert isinstance(record, kind)
        if check is not None:
            check(record)
    except ValueError as error:
        raise RecordRefused(what, str(error)) from None
    return record


Headers = tuple[tuple[str, bytes | None], ...]
"""Kafka headers in order; a name may occur more than once."""


def record_id(topic: str, partition: int, offset: int, cluster: str | None = None) -> str:
    """Return the id of every result of an input record: topic-partition-offset.

    It is the same for every delivery of the message, so that consumers can deduplicate by it.
    Mirrored clusters give the same offset to different messages; a configured ``cluster`` name
    therefore comes first, with a slash, which a topic's name cannot have.
    """
    place = f"{topic}-{partition}-{offset}"
    return f"{cluster}/{place}" if cluster else place


@dataclass(slots=True)
class Source:
    """The input record."""

    topic: Annotated[str, Doc("Topic of the input record.")]
    partition: Annotated[int, Doc("Partition of the input record.")]
    offset: Annotated[int, Doc("Offset of the input record.")]
    timestamp: Annotated[str | None, Doc("Timestamp of the input record, RFC 3339 in UTC.")]
    cluster: Annotated[
        str | None,
        Doc("Name of the Kafka cluster, if it is configured; the id then begins with it."),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """The adapter that made this label."""

    name: Annotated[str, Doc("Name of the adapter, for people; the digest identifies it.")]
    digest: Annotated[str, Doc("SHA-256 of the adapter's manifest.")]


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """The adapter that made this label, and the precision in which it was served."""

    name: Annotated[str, Doc("Name of the adapter, for people; the digest identifies it.")]
    digest: Annotated[str, Doc("SHA-256 of the adapter's manifest.")]
    precision: Annotated[
        str,
        Doc(
            "Number format of the model's arithmetic: fp32, bf16, fp16 or int8, or vLLM's name of "
            "a quantization. The same digest in another precision gives some messages other "
            "labels. For a cascade, that of the stage that answered."
        ),
    ]


@dataclass(frozen=True, slots=True)
class TaxonomyRef:
    """The label set this label comes from."""

    name: Annotated[str, Doc("Name of the taxonomy.")]
    version: Annotated[str, Doc("Version of the taxonomy, given by its owner.")]
    digest: Annotated[str, Doc("SHA-256 over every label and its description.")]


def check_identity(id_: str, source: Source) -> None:
    """Raise ValueError unless a record's id is that of its source, and its timestamp is a time.

    The values are not quoted: in a foreign record a field may contain a message.
    """
    if id_ != record_id(source.topic, source.partition, source.offset, source.cluster):
        raise ValueError("id does not match source: it must be topic-partition-offset")
    if source.timestamp is not None:
        check_time("source.timestamp", source.timestamp)


def check_time(where: str, text: str) -> None:
    """Raise ValueError, naming the field, unless ``text`` is a time in RFC 3339."""
    try:
        parse_rfc3339(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


# --- Replays ---
#
# A record that is labelled again keeps its id. Of several results with the same id, the one from
# the replay that began last counts; any replay's replaces the first run's (``supersedes``).


REPLAY_ID = r"^[A-Za-z0-9._-]{1,100}$"
"""A replay's id is also part of its consumer group's name."""

_NAMES = {"id": "clerk.replay.id", "at": "clerk.replay.at", "reason": "clerk.replay.reason"}

REPLAY_HEADERS = frozenset(_NAMES.values())


@dataclass(frozen=True, slots=True)
class Replay:
    """The replay that made a result; absent from results of the first run."""

    id: Annotated[str, Pattern(REPLAY_ID), Doc("Name of the replay.")]
    at: Annotated[
        str,
        Doc("When it began, RFC 3339 in UTC: of results with the same id, the latest counts."),
    ]
    reason: Annotated[str, Doc("Why, as given by its operator.")]

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the additional headers of a dead letter."""
        return tuple((name, getattr(self, field).encode()) for field, name in _NAMES.items())


def supersedes(new: Replay | None, old: Replay | None) -> bool:
    """Whether a result of ``new`` replaces one of ``old`` with the same id; None is the first run.
    Within one replay there is one result for each id."""
    return _rank(new) > _rank(old)


def read_replay(headers: Sequence[tuple[str, bytes | None]]) -> Replay | None:
    """Read a dead letter's replay; None for the first run. Raises RecordRefused."""
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
    if _NAMES["id"] not in found:
        return None
    replay = Replay(**{field: found.get(name, "") for field, name in _NAMES.items()})
    try:
        check_replay(replay)
    except ValueError as error:
        raise RecordRefused("the dead letter", str(error)) from None
    return replay


def check_replay(replay: Replay) -> None:
    """Raise ValueError for a malformed id or time."""
    if re.fullmatch(REPLAY_ID, replay.id) is None:
        raise ValueError(f"replay.id does not match {REPLAY_ID}")
    check_time("replay.at", replay.at)


def _rank(replay: Replay | None) -> tuple[float, str]:
    # The id breaks ties, so that every reader prefers the same one of two simultaneous replays.
    return (0.0, "") if replay is None else (parse_rfc3339(replay.at).timestamp(), replay.id)
