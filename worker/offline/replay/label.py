"""Labelling a batch of records with one adapter, and encoding what comes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from worker.contract.errors import RejectReason
from worker.contract.records import Replay, without_worker_headers
from worker.core.labeller import Prepared
from worker.core.serving_adapter import ServingAdapter
from worker.engine.port import Answer
from worker.errors import MessageRejected, StreamFailed
from worker.offline.answers import wait_for_answers, why_cancelled
from worker.records.types import Outcome, Outgoing, Postponed, Record, Rejected, Timing, Tombstone
from worker.stream.topics import Topics


@dataclass(slots=True)
class _Asked:
    index: int
    prepared: Prepared
    attempts: int
    since: float


def label_records(
    adapter: ServingAdapter, records: Sequence[Record], *, max_attempts: int, silence_s: float
) -> list[Outcome]:
    """Return each record's outcome, as the worker would have it.

    Messages that are still unanswered when nothing else was answered for ``silence_s``, and again
    for as long after the engine has answered a prompt that it knows, are rejected. Raises
    EngineDied, also when it does not answer that: nothing of these records is published then, and
    the replay can be gone on with.
    """
    outcomes: dict[int, Outcome] = {}
    waiting: dict[Future[Answer], _Asked] = {}
    for index, record in enumerate(records):
        try:
            prepared = adapter.labeller.prepare(record)
        except MessageRejected as error:
            outcomes[index] = Rejected(error.reason, "decode", error.detail)
            continue
        future = adapter.engine.submit(prepared.prompt_ids)
        waiting[future] = _Asked(index, prepared, 1, time.monotonic())
    while waiting:
        for future in wait_for_answers(adapter.engine, adapter.manifest, waiting, silence_s):
            asked = waiting.pop(future)
            outcome = _outcome(adapter, asked, future, max_attempts, silence_s)
            if outcome is not None:
                outcomes[asked.index] = outcome
            else:
                asked.attempts += 1
                waiting[adapter.engine.submit(asked.prepared.prompt_ids)] = asked
    return [outcomes[index] for index in range(len(records))]


def _outcome(
    adapter: ServingAdapter,
    asked: _Asked,
    future: Future[Answer],
    max_attempts: int,
    silence_s: float,
) -> Outcome | None:
    """Return what an answer comes to; None: ask again."""
    if future.cancelled():
        return Rejected("deadline_exceeded", "engine", why_cancelled(silence_s), asked.attempts)
    timing = Timing(queue_s=0.0, engine_s=time.monotonic() - asked.since)
    try:
        return adapter.labeller.classify(asked.prepared, future.result(), timing)
    except MessageRejected as error:
        if asked.attempts < max_attempts:
            return None
        return Rejected(error.reason, "engine", error.detail, asked.attempts)


def encode_results(
    adapter: ServingAdapter,
    topics: Topics,
    replay: Replay,
    records: Sequence[Record],
    outcomes: Sequence[Outcome],
) -> list[Outgoing]:
    """Return the records to produce, each marked with the replay."""
    now = datetime.now(UTC)
    results = []
    for record, outcome in zip(records, outcomes, strict=True):
        assert not isinstance(outcome, Tombstone | Postponed), "these are no results"
        if isinstance(outcome, Rejected):
            results.append(_marked(adapter.dead_letters.encode(record, outcome), replay))
            continue
        topic = topics.output
        if outcome.review and topics.review is not None:
            topic = topics.review
        labelled = replace(record, headers=without_worker_headers(record.headers))
        results.append(adapter.outputs.encode(labelled, outcome, topic, now, replay))
    return results


def make_smaller(
    adapter: ServingAdapter,
    replay: Replay,
    record: Record,
    outgoing: Outgoing,
    reason: RejectReason,
    detail: str,
) -> Outgoing:
    """Return what is written in place of a result that its topic does not take.

    A label becomes a dead letter, a dead letter one without its payload. Raises StreamFailed when
    that is refused as well.
    """
    rejected = Rejected(reason, "encode", detail)
    if outgoing.topic != adapter.dead_letters.topic:
        return _marked(adapter.dead_letters.encode(record, rejected), replay)
    if outgoing.value is not None:
        return _marked(adapter.dead_letters.without_payload(record, rejected), replay)
    raise StreamFailed(
        f"the dead letter of {record.id} cannot be written even without its payload ({detail}): "
        "raise max.message.bytes of the dead-letter topic, and do not compact it"
    )


def _marked(letter: Outgoing, replay: Replay) -> Outgoing:
    return replace(letter, headers=letter.headers + replay.headers())
