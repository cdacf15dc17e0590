"""Labelling the same messages with one adapter, then with the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from worker.contract import Manifest
from worker.engine.open import OpenedEngine
from worker.errors import MessageRejected, SettingsError
from worker.offline.classify import Result, label_in_order, with_progress
from worker.offline.compare.adapters import resolve
from worker.offline.compare.figures import Comparison, Labelled, Pair, compare
from worker.offline.message_file import MessageFile, Row, read_rows
from worker.policies import kafka_config
from worker.records.decode import decode_record
from worker.records.types import Record, SupportMessage
from worker.serving import make_labeller, open_model, record_layout
from worker.settings import Settings
from worker.stream.kafka_range import RecordRange, read_range

Opener = Callable[[Settings], OpenedEngine]


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Two adapters by name, and the messages: a file, or a stretch of a topic (None: the input
    topic). At most ``most`` messages; ``texts`` are kept where that is true."""

    first: str
    second: str
    file: MessageFile | None
    stretch: RecordRange | None
    topic: str | None
    most: int
    texts: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both manifests, each message that got a label from both, how many did not, and the figures.

    ``source`` says in words where the messages came from.
    """

    first: Manifest
    second: Manifest
    source: str
    pairs: tuple[Pair, ...]
    without: int
    figures: Comparison


def run_compare(settings: Settings, ask: CompareRequest, opener: Opener = open_model) -> Outcome:
    """Read the messages, label them twice and compare. One engine at a time is in memory.

    Raises WorkerStopped or AdapterRefused; SettingsError where there is nothing to compare.
    """
    adapters = [resolve(one, settings.model.adapter) for one in (ask.first, ask.second)]
    if adapters[0].resolve() == adapters[1].resolve():
        raise SettingsError(f"{ask.first} and {ask.second} are the same adapter: {adapters[0]}")
    source, rows = read_messages(settings, ask)
    if not rows:
        raise SettingsError(f"{source}: there is no message to compare on")
    answers = [_label(settings, one, rows, opener) for one in adapters]
    (first, ours), (second, theirs) = answers
    pairs = tuple(_pairs(rows, ours, theirs, texts=ask.texts))
    if not pairs:
        raise SettingsError(f"{source}: none of the {len(rows)} messages got a label from both")
    names = (*first.taxonomy.names, *second.taxonomy.names)
    return Outcome(first, second, source, pairs, len(rows) - len(pairs), compare(pairs, names))


def read_messages(settings: Settings, ask: CompareRequest) -> tuple[str, list[Row]]:
    """Return where the messages are from, in words, and at most ``ask.most`` of them."""
    layout = record_layout(settings.records)
    if ask.file is not None:
        rows = []
        for row in read_rows(ask.file, layout):
            rows.append(row)
            if len(rows) == ask.most:
                break
        return ask.file.source, rows
    topic = ask.topic or settings.kafka.input_topic
    config = kafka_config(settings.kafka)
    records = read_range(config, topic, ask.stretch or RecordRange(), ask.most)
    found: list[Row] = []
    for one in records:
        message: SupportMessage | MessageRejected
        try:
            message = decode_record(one, layout)
        except MessageRejected as error:
            message = error
        found.append(Row({"id": one.id}, message))
    return f"{topic} ({_between(records)})" if records else topic, found


def _between(records: Sequence[Record]) -> str:
    """Say which offsets were read, so that the same can be read again."""
    by_partition: dict[int, list[int]] = {}
    for one in records:
        by_partition.setdefault(one.source.partition, []).append(one.offset)
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
        results = label_in_order(labeller, opened.engine, rows)
        told = with_progress(results, len(rows), f"{opened.manifest.name}")
        return opened.manifest, [result for _, result in told]


def _pairs(
    rows: Sequence[Row], ours: Sequence[Result], theirs: Sequence[Result], *, texts: bool
) -> Iterator[Pair]:
    for number, (row, first, second) in enumerate(zip(rows, ours, theirs, strict=True), 1):
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
