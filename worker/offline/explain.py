"""``clerk-worker explain``: where one result comes from, and whether it comes out again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from worker.contract import read_manifest
from worker.contract.codec import encode
from worker.contract.errors import AdapterRefused, MessageRejected, RecordRefused
from worker.contract.records import (
    Correction,
    DeadLetter,
    OutputRecord,
    Retraction,
    SupportMessage,
    read_correction,
    read_dead_letter,
    read_output,
)
from worker.contract.records.identity import supersedes
from worker.contract.scoring import Thresholds
from worker.errors import SettingsError
from worker.offline.adapters import resolve_adapter
from worker.offline.classify import label_in_order
from worker.offline.message_files import record_row
from worker.offline.records import wanted_offsets
from worker.policies import kafka_config
from worker.records.types import Classified, Record, TopicPartition
from worker.serving import Opener, make_labeller, open_model, override_thresholds
from worker.settings import Settings
from worker.stream.kafka_reach import reach
from worker.stream.kafka_scan import TopicScanner
from worker.stream.topics import RecordRange

_ID = re.compile(r"(?:([^/]+)/)?(.+)-([0-9]+)-([0-9]+)")

SAME_WITHIN = 1e-4
LOWER_WITHIN = 0.05
"""Scores that differ by more than this do not come from the same computation, in float32 and in
lower precisions, where they depend on the messages that are computed at the same time."""


@dataclass(frozen=True, slots=True)
class Again:
    """The message labelled again: ``largest`` is the largest difference of a score."""

    label: str
    largest: float
    reasons: tuple[str, ...]
    precisions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a result. ``not_again``: why the message was not labelled again."""

    id: str
    result: OutputRecord | None
    letter: DeadLetter | None = None
    earlier: int = 0
    thresholds: tuple[Thresholds, ...] = ()
    corrections: tuple[Correction | Retraction, ...] = ()
    again: Again | None = None
    not_again: str = ""
    text: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the same label came out again, with the same scores; a dead letter has none."""
        again, result = self.again, self.result
        if again is None or result is None:
            return result is None
        exact = set(again.precisions) == {"fp32"}
        return again.label == result.label and again.largest <= (
            SAME_WITHIN if exact else LOWER_WITHIN
        )


def explain(
    settings: Settings,
    id_: str,
    *,
    saved: Path | None = None,
    corrections: str | None = None,
    with_text: bool = False,
    opener: Opener = open_model,
) -> Explanation:
    """Find a result by its id, or take the ``saved`` one, and label its message again with the
    adapter that it names. Raises SettingsError for an id without a result, StreamFailed."""
    found = _ID.fullmatch(id_)
    if found is None:
        raise SettingsError(f"{id_!r} is not a record's id: it is TOPIC-PARTITION-OFFSET")
    source = TopicPartition(found[2], int(found[3]))
    config = kafka_config(settings.kafka)
    topics = config.topics
    if not topics.is_input(source.topic):
        raise SettingsError(f"{id_}: {source.topic} is not in kafka.input_topics")
    changes = corrections or f"{topics.output}.corrections"
    there = reach(config)[1].topics
    if corrections is not None and corrections not in there:
        raise SettingsError(f"--corrections {corrections}: there is no such topic")
    with TopicScanner(config) as scanner:
        message = _message(scanner, source, int(found[4]))
        since = message.timestamp_ms if message is not None else None
        explained = Explanation(id_, _saved(saved, id_) if saved is not None else None)
        if saved is None:
            for record in _records(scanner, topics.results, since):
                explained = _with(explained, record, topics.dead_letter)
        if changes in there:
            about = tuple(
                each
                for record in _records(scanner, (changes,), since)
                if (each := _correction(record)) is not None and each.id == id_
            )
            explained = replace(explained, corrections=about)
    if explained.result is None and explained.letter is None:
        raise SettingsError(f"{id_}: no result of it is in {', '.join(topics.results)}")
    if explained.result is None:
        return explained
    return _again(settings, explained, message, with_text=with_text, opener=opener)


def _again(
    settings: Settings,
    explained: Explanation,
    message: Record | None,
    *,
    with_text: bool,
    opener: Opener,
) -> Explanation:
    result = explained.result
    assert result is not None
    try:
        directory = resolve_adapter(result.adapter.digest, settings.model.adapter)
        manifest = read_manifest(directory)
    except (SettingsError, AdapterRefused) as error:
        return replace(explained, not_again=str(error))
    given = [stage.thresholds for stage in manifest.stages] or [manifest.thresholds]
    thresholds = tuple(override_thresholds(settings.review, each) for each in given)
    explained = replace(explained, thresholds=thresholds)
    if message is None:
        return replace(explained, not_again="the message is no longer in its topic")
    model = settings.model.model_copy(update={"adapter": directory})
    opened = opener(settings.model_copy(update={"model": model}))
    with closing(opened.engine):
        labeller = make_labeller(settings, opened)
        row = record_row(message, labeller.layout)
        ((_, found),) = label_in_order(
            labeller, opened.engine, [row], silence_s=settings.loop.deadline_s
        )
    if with_text and isinstance(row.message, SupportMessage):
        explained = replace(explained, text=row.message.text)
    if not isinstance(found, Classified):
        return replace(explained, not_again=f"it got no label: {found.detail}")
    scores = found.decision.scores
    largest = max(abs(scores.get(name, 0.0) - score) for name, score in result.scores.items())
    again = Again(found.decision.label, largest, found.review, tuple(opened.engine.precisions))
    return replace(explained, again=again)


def _message(scanner: TopicScanner, source: TopicPartition, offset: int) -> Record | None:
    log = scanner.spans(source.topic).get(source)
    if log is None or not log.start <= offset < log.end:
        return None
    return next(iter(scanner.records({source: (offset, offset + 1)})), None)


def _records(
    scanner: TopicScanner, topics: tuple[str, ...], since_ms: int | None
) -> Iterator[Record]:
    """Yield what was written to these topics since a time (Unix), if it is known."""
    for topic in topics:
        since = RecordRange(since_ms=since_ms)
        yield from scanner.records(wanted_offsets(scanner, since, scanner.spans(topic)))


def _with(explained: Explanation, record: Record, dead_letters: str) -> Explanation:
    """Take a record of a result topic, if it is about this id: of several the latest counts."""
    try:
        if record.source.topic == dead_letters:
            letter = read_dead_letter(record.headers)
            return replace(explained, letter=letter) if letter.id == explained.id else explained
        result = read_output(record.content)
    except (RecordRefused, MessageRejected):
        return explained
    if result.id != explained.id:
        return explained
    before = explained.result
    if before is None:
        return replace(explained, result=result)
    latest = result if supersedes(result.replay, before.replay) else before
    return replace(explained, result=latest, earlier=explained.earlier + 1)


def _correction(record: Record) -> Correction | Retraction | None:
    try:
        return read_correction(record.value)
    except RecordRefused:
        return None


def _saved(path: Path, id_: str) -> OutputRecord:
    try:
        result = read_output(path.read_bytes())
    except (OSError, RecordRefused) as error:
        raise SettingsError(f"--record {path}: {error}") from error
    if result.id != id_:
        raise SettingsError(f"--record {path}: is of {result.id}")
    return result


def to_json(found: Explanation) -> dict[str, Any]:
    """Return everything, for ``--json``."""
    return {**encode(found), "holds": found.holds}


def show(found: Explanation, console: Console) -> None:
    """Print it for people."""
    result, again = found.result, found.again
    if result is None:
        assert found.letter is not None
        console.print(f"[bold]{escape(found.id)}[/] is a dead letter: {found.letter.reason}")
        console.print(f"  {escape(found.letter.error)}, at the stage {found.letter.stage}")
        return
    review = ", for review" if result.review.needed else ""
    console.print(
        f"[bold]{escape(found.id)}[/] is {escape(result.label)}, {result.confidence:.1%}{review}"
    )
    if again is None:
        verdict = f"not computed: {found.not_again}"
    else:
        same = "the same label" if again.label == result.label else f"another label: {again.label}"
        precisions = "+".join(again.precisions)
        verdict = f"{same}; scores differ by at most {again.largest:.1e} ({precisions})"
    for name, value in (*_about(result), *_around(found), ("again", verdict)):
        console.print(f"  {name:<16}{escape(value)}")


def _about(result: OutputRecord) -> Iterator[tuple[str, str]]:
    adapter, taxonomy, base = result.adapter, result.taxonomy, result.base_model
    best = sorted(result.scores.items(), key=lambda pair: -pair[1])[:5]
    yield "labelled", f"{result.labelled_at} by worker {result.worker_version}"
    yield "adapter", f"{adapter.name} {adapter.digest}, {adapter.precision}"
    yield "base", f"{base.name}, {base.revision}"
    yield "taxonomy", f"{taxonomy.name} {taxonomy.version}"
    yield "scores", ", ".join(f"{name} {score:.4f}" for name, score in best)
    if result.off_label_mass is not None:
        yield "off-label mass", f"{result.off_label_mass:.4f}"
    if result.out_of_scope is not None:
        yield "out of scope", f"{result.out_of_scope.method} {result.out_of_scope.score:.4f}"
    yield "review", ", ".join(result.review.reasons) or "not needed"
    if result.cascade is not None:
        before = ", ".join(f"{each.label} {each.confidence:.4f}" for each in result.cascade.earlier)
        at = f"{result.cascade.stage} of {result.cascade.stages} answered"
        yield "stages", f"{at}; before it: {before}" if before else at
    if result.replay is not None:
        yield "replay", f"{result.replay.id}: {result.replay.reason}"


def _around(found: Explanation) -> Iterator[tuple[str, str]]:
    for number, limits in enumerate(found.thresholds, 1):
        given = {name: value for name, value in encode(limits).items() if value is not None}
        shown = (f"{name.removeprefix('review_')} {value:g}" for name, value in given.items())
        one = len(found.thresholds) == 1
        yield "thresholds now" if one else f"of stage {number}", ", ".join(shown)
    if found.earlier:
        yield "other results", f"{found.earlier} with the same id, which this one replaces"
    for each in found.corrections:
        if isinstance(each, Correction):
            yield "corrected", f"{each.label} by {each.decided_by}, {each.decided_at}"
        else:
            yield "withdrawn", f"{each.reason}, {each.retracted_at}"
    if found.text is not None:
        yield "message", found.text
