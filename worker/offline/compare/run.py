"""Labelling the same messages with one adapter, then with the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from worker.contract import Manifest
from worker.contract.records import SupportMessage, decode_value
from worker.engine.open import OpenedEngine
from worker.errors import MessageRejected, SettingsError
from worker.offline.classify import Result, label_in_order, with_progress
from worker.offline.compare.adapters import resolve_adapter
from worker.offline.compare.agreement import Comparison, Labelled, Pair, compare
from worker.offline.input_range import read_range
from worker.offline.message_file import MessageFile, Row, read_rows
from worker.policies import kafka_config
from worker.records.types import Record
from worker.serving import make_labeller, open_model, record_layout
from worker.settings import Settings
from worker.stream.kafka_check import check_clients
from worker.stream.record_range import RecordRange

Opener = Callable[[Settings], OpenedEngine]


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Two adapters by name, and the messages: a file, or a range of a topic's records.

    ``topic`` None is the input topic. At most ``limit`` messages are read; ``texts`` keeps their
    text in the result.
    """

    first: str
    second: str
    file: MessageFile | None
    records: RecordRange | None
    topic: str | None
    limit: int
    texts: bool = False


@dataclass(frozen=True, slots=True)
class CompareResult:
    """Both manifests, the messages that got a label from both, and how the two agree on them.

    ``source`` says in words where the messages came from; ``unlabelled`` counts those without a
    label from one or both.
    """

    first: Manifest
    second: Manifest
    source: str
    pairs: tuple[Pair, ...]
    unlabelled: int
    comparison: Comparison


def run_compare(
    settings: Settings, request: CompareRequest, opener: Opener = open_model
) -> CompareResult:
    """Read the messages, label them with both adapters and compare. Only one engine runs at a time.

    Raises WorkerStopped or AdapterRefused; SettingsError where there is nothing to compare.
    """
    names = (request.first, request.second)
    adapters = [resolve_adapter(name, settings.model.adapter) for name in names]
    if adapters[0].resolve() == adapters[1].resolve():
        raise SettingsError(f"{' and '.join(names)} are the same adapter: {adapters[0]}")
    source, rows = read_messages(settings, request)
    if not rows:
        raise SettingsError(f"{source}: there is no message to compare on")
    answers = [_label(settings, adapter, rows, opener) for adapter in adapters]
    (first, first_results), (second, second_results) = answers
    pairs = tuple(_pairs(rows, first_results, second_results, texts=request.texts))
    if not pairs:
        raise SettingsError(f"{source}: none of the {len(rows)} messages got a label from both")
    labels = (*first.taxonomy.names, *second.taxonomy.names)
    comparison = compare(pairs, labels)
    return CompareResult(first, second, source, pairs, len(rows) - len(pairs), comparison)


def read_messages(settings: Settings, request: CompareRequest) -> tuple[str, list[Row]]:
    """Return where the messages are from, in words, and at most ``request.limit`` of them."""
    layout = record_layout(settings.records)
    if request.file is not None:
        rows = read_rows(request.file, layout)
        return request.file.source, list(islice(rows, request.limit))
    config = kafka_config(settings.kafka)
    topic = config.topics.one_input(request.topic)
    check_clients(config)
    records = read_range(config, topic, request.records or RecordRange(), request.limit)
    found: list[Row] = []
    for record in records:
        message: SupportMessage | MessageRejected
        try:
            message = decode_value(record.value, layout)
        except MessageRejected as error:
            message = error
        found.append(Row({"id": record.id}, message))
    return f"{topic} ({_offsets_read(records)})" if records else topic, found


def _offsets_read(records: Sequence[Record]) -> str:
    """Say which offsets were read, so that the same records can be read again."""
    by_partition: dict[int, list[int]] = {}
    for record in records:
        by_partition.setdefault(record.source.partition, []).append(record.offset)
    return ", ".join(
        f"{partition}:{min(offsets)}-{max(offsets)}"
        for partition, offsets in sorted(by_partition.items())
    )


def _label(
    settings: Settings, adapter: Path, rows: Sequence[Row], opener: Opener
) -> tuple[Manifest, list[Result]]:
    model = settings.model.model_copy(update={"adapter": adapter})
    opened = opener(settings.model_copy(update={"model": model}))
    with closing(opened.engine):
        labeller = make_labeller(settings, opened)
        results = label_in_order(labeller, opened.engine, rows, silence_s=settings.loop.deadline_s)
        shown = with_progress(results, len(rows), opened.manifest.name)
        return opened.manifest, [result for _, result in shown]


def _pairs(
    rows: Sequence[Row], firsts: Sequence[Result], seconds: Sequence[Result], *, texts: bool
) -> Iterator[Pair]:
    for number, (row, first, second) in enumerate(zip(rows, firsts, seconds, strict=True), 1):
        if first["label"] is None or second["label"] is None:
            continue
        text = row.message.text if texts and isinstance(row.message, SupportMessage) else None
        yield Pair(_id(row, number), _labelled(first), _labelled(second), row.label, text)


def _id(row: Row, number: int) -> str:
    for name in ("id", "message_id", "ticket_id"):
        if row.fields.get(name):
            return str(row.fields[name])
    return f"line {row.fields.get('line', number)}"


def _labelled(result: Result) -> Labelled:
    return Labelled(
        result["label"],
        result["confidence"],
        result["off_label_mass"],
        bool(result["review"]),
    )
