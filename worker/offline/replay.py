"""``clerk-worker replay``: label chosen records again, next to the running workers.

Each replay has its own consumer group, whose offsets are committed in the transactions that publish
its results. Run the command again after an interruption and it resumes: every record gets exactly
one result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice

import structlog

from worker.contract import read_manifest
from worker.contract.errors import RejectReason
from worker.contract.records import Replay, without_worker_headers
from worker.core.labeller import ServingAdapter
from worker.core.publisher import PUBLISH_MAX_RECORDS
from worker.engine.open import OpenedEngine
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    SettingsError,
    StreamFailed,
)
from worker.offline.adapters import CURRENT, resolve_adapter
from worker.offline.classify import Result, label_in_order
from worker.offline.message_files import record_row
from worker.offline.records import ScanProgress, has_no_result
from worker.offline.replay_plan import Criteria, make_plan, make_selector
from worker.policies import kafka_config, loop_policy
from worker.records.types import (
    Batch,
    NextOffset,
    Outgoing,
    Record,
    Rejected,
    TopicPartition,
)
from worker.serving import make_serving_adapter, open_model
from worker.settings import ModelSettings, Settings
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_publish import KafkaPublisher
from worker.stream.kafka_scan import TopicScanner
from worker.stream.kafka_topics import prepare_topics
from worker.stream.topics import RecordRange, Topics

Opener = Callable[[Settings], OpenedEngine]
Place = tuple[TopicPartition, int]
"""A record's partition and offset."""


_log = structlog.get_logger("worker.replay")
_MAX_BACKOFF_S = 10.0
Replace = Callable[[int, Outgoing, str], Outgoing]
"""Called with an index, the result there, and why it is too large; returns the replacement."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The records to label again, the replay's identity, the adapter, and the topics.

    ``adapter`` is a name for ``resolve_adapter``. ``to`` maps settings (``output_topic``,
    ``review_topic``, ``dead_letter_topic``) to topics that replace the worker's. Without
    ``execute`` records are only counted. ``topic`` is the input topic if there are several.
    """

    replay: Replay
    criteria: Criteria
    records: RecordRange | None
    adapter: str
    to: Mapping[str, str]
    execute: bool
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The chosen records that were left at the start of this run, and what it published.

    ``chosen`` counts records by input partition (offsets if ``at_most``: a range alone was given),
    ``resumed_at`` has the offsets that an earlier run reached, ``expired`` counts chosen records
    that the input topic no longer has.
    """

    group: str
    chosen: Mapping[int, int]
    resumed_at: Mapping[int, int]
    expired: int
    at_most: bool
    labelled: int
    dead: int


def run_replay(
    settings: Settings, request: ReplayRequest, opener: Opener = open_model
) -> ReplayResult:
    """Count, and with ``execute`` label and publish. Raises WorkerStopped, AdapterRefused."""
    selector = make_selector(request.criteria, request.records, request.replay.id)
    source = _own_settings(settings, request, {})
    target = _own_settings(settings, request, request.to)
    config = kafka_config(source.kafka)
    with ExitStack() as stack:
        scanner = stack.enter_context(TopicScanner(config))
        progress = stack.enter_context(ScanProgress())
        model = _model(settings, request) if request.execute else settings.model
        note = _note(request, model)
        begun = _begun(scanner, config.topics.dead_letter, request, note)
        topic = config.topics.one_input(request.topic)
        done = scanner.committed(list(scanner.spans(topic)))
        plan = make_plan(scanner, progress, config.topics, topic, request.records, selector)
        left = plan.count(done)
        labelled = dead = 0
        if request.execute and any(left.values()):
            ready = prepare_topics(kafka_config(target.kafka))
            adapter = stack.enter_context(_opened(target, model, opener))
            publisher = stack.enter_context(_publishing(target, ready, scanner))
            if begun is None:
                scanner.write_note(config.topics.dead_letter, f"{note} {request.replay.at}")
            replay = begun or request.replay
            # Read the offsets again: an earlier run that still lived is fenced only now.
            records = plan.records(scanner, progress, scanner.committed(list(plan.ranges)))
            labelled, dead = _label_all(target, adapter, publisher, ready.topics, replay, records)
    return ReplayResult(
        source.kafka.group_id,
        {partition.partition: count for partition, count in left.items()},
        {partition.partition: offset for partition, offset in done.items()},
        plan.expired,
        plan.selected is None,
        labelled,
        dead,
    )


def _own_settings(settings: Settings, request: ReplayRequest, to: Mapping[str, str]) -> Settings:
    """Return the settings with the replay's own group, and with topics replaced by ``to``.

    The transactional.id is derived from group and instance, so it is the same in every run: of two
    commands with the same replay id the later one fences the earlier.
    """
    group = f"{settings.kafka.group_id}.replay.{request.replay.id}"
    kafka = settings.kafka.model_copy(
        update={
            "group_id": group,
            # Whatever the workers use: progress and results must not come apart.
            "delivery": "exactly_once",
            # A misspelt --to-output must be an error, not a new topic that nobody reads.
            "create_topics": False,
            "instance_id": "replay",
            **to,
        }
    )
    return settings.model_copy(update={"kafka": kafka})


def _label_all(
    settings: Settings,
    adapter: ServingAdapter,
    publisher: ReplayPublisher,
    topics: Topics,
    replay: Replay,
    records: Iterable[Record],
) -> tuple[int, int]:
    """Label and publish in batches; return the numbers of labels and of dead letters."""
    loop = settings.loop
    labelled = dead = 0
    # Each batch is one transaction, so it has the worker's limit for one.
    for read in _batches(records, min(loop.max_in_flight, PUBLISH_MAX_RECORDS)):
        batch = [each for each in read if not has_no_result(each, settings.records.tombstones)]
        rows = [record_row(record, adapter.labeller.layout) for record in batch]
        results_of = label_in_order(
            adapter.labeller, adapter.engine, rows, silence_s=loop.deadline_s
        )
        outcomes = [outcome for _, outcome in results_of]
        outputs = encode_results(adapter, topics, replay, batch, outcomes)
        results = {_place(record): output for record, output in zip(batch, outputs, strict=True)}
        publish_results(publisher, adapter, replay, read, results)
        rejected = sum(isinstance(outcome, Rejected) for outcome in outcomes)
        labelled, dead = labelled + len(batch) - rejected, dead + rejected
    return labelled, dead


def publish_results(
    publisher: ReplayPublisher,
    adapter: ServingAdapter,
    replay: Replay,
    read: Sequence[Record],
    results: dict[Place, Outgoing],
) -> None:
    """Publish the results of the records ``read``, with the offsets after them.

    If the broker refuses the batch, publish it in halves, until the refused record is alone and
    becomes a dead letter.
    """
    batch = [record for record in read if _place(record) in results]

    def smaller(index: int, outgoing: Outgoing, detail: str) -> Outgoing:
        return make_smaller(adapter, replay, batch[index], outgoing, "output_too_large", detail)

    outputs = [results[_place(record)] for record in batch]
    try:
        publisher.publish(outputs, _next_offsets(read), smaller)
    except OutputRefused as error:
        if len(read) > 1:
            for part in (read[: len(read) // 2], read[len(read) // 2 :]):
                publish_results(publisher, adapter, replay, part, results)
            return
        [record] = read
        refused = results[_place(record)]
        letter = make_smaller(adapter, replay, record, refused, error.reason, str(error))
        publish_results(publisher, adapter, replay, read, {_place(record): letter})


def _place(record: Record) -> Place:
    return record.source, record.offset


def _begun(
    scanner: TopicScanner, noted_at: str, request: ReplayRequest, note: str
) -> Replay | None:
    """Return the replay as its first run began it; None if this is the first.

    The note is stored as the metadata of a meaningless committed offset, of a topic that is never
    the input: it needs no topic of its own. Raises SettingsError if the replay was begun with other
    choices, whose omissions would count as done, or with another adapter.
    """
    found = scanner.read_note(noted_at)
    if found is None:
        return None
    (choices, adapter), (begun_choices, begun_adapter, at) = note.split(" "), found.split(" ")
    name = f"--id {request.replay.id}: this replay was begun with"
    if choices != begun_choices:
        raise SettingsError(
            f"{name} other choices, another range or other topics: repeat those to resume it, or "
            "give another --id"
        )
    if request.execute and adapter != begun_adapter:  # counting needs no adapter
        raise SettingsError(
            f"{name} the adapter {begun_adapter}, not {adapter}: give --adapter {begun_adapter} to "
            "resume it, or another --id"
        )
    return replace(request.replay, at=at)


def _note(request: ReplayRequest, model: ModelSettings) -> str:
    """Return what must be the same in every run of a replay: choices and adapter."""
    choices = repr((request.criteria, request.records, sorted(request.to.items())))
    digest = "-"
    if request.execute and model.adapter is not None:
        digest = read_manifest(model.adapter).digest
    return f"{sha256(choices.encode()).hexdigest()[:16]} {digest[:16]}"


def _model(settings: Settings, request: ReplayRequest) -> ModelSettings:
    """Return the model's settings with a fixed adapter, whatever becomes current meanwhile."""
    model = settings.model
    if request.adapter == CURRENT and model.adapter is None:
        return model
    chosen = resolve_adapter(request.adapter, model.adapter)
    return model.model_copy(update={"adapter": chosen})


@contextmanager
def _publishing(
    settings: Settings, config: KafkaConfig, scanner: TopicScanner
) -> Iterator[ReplayPublisher]:
    policy = loop_policy(settings.loop)
    publisher = ReplayPublisher(
        KafkaPublisher(config, scanner),
        scanner.committed,
        attempts=policy.publish_attempts,
        backoff_s=policy.publish_backoff_s,
        timeout_s=config.start_timeout_s,
    )
    with closing(publisher):
        publisher.start()
        yield publisher


@contextmanager
def _opened(settings: Settings, model: ModelSettings, opener: Opener) -> Iterator[ServingAdapter]:
    opened = opener(settings.model_copy(update={"model": model}))
    with closing(opened.engine):
        yield make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine)


def _batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch


def _next_offsets(batch: Sequence[Record]) -> list[NextOffset]:
    last: dict[TopicPartition, int] = {}
    for record in batch:
        last[record.source] = record.offset
    return [NextOffset(source, offset + 1) for source, offset in last.items()]


def encode_results(
    adapter: ServingAdapter,
    topics: Topics,
    replay: Replay,
    records: Sequence[Record],
    outcomes: Sequence[Result],
) -> list[Outgoing]:
    """Return the records to produce, each marked with the replay."""
    now = datetime.now(UTC)
    results = []
    for record, outcome in zip(records, outcomes, strict=True):
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
    """Return the replacement for a result that its topic refuses: for a label a dead letter, for a
    dead letter one without its payload. Raises StreamFailed if that is refused too."""
    rejected = Rejected(reason, "encode", detail)
    if outgoing.topic != adapter.dead_letters.topic:
        return _marked(adapter.dead_letters.encode(record, rejected), replay)
    if outgoing.value is not None:
        return _marked(adapter.dead_letters.without_payload(record, rejected), replay)
    raise StreamFailed(
        f"cannot write the dead letter of {record.id} even without its payload ({detail}): "
        "raise max.message.bytes of the dead-letter topic, and do not compact it"
    )


def _marked(letter: Outgoing, replay: Replay) -> Outgoing:
    return replace(letter, headers=letter.headers + replay.headers())


class ReplayPublisher:
    """Publishes batches together with the offsets of the replay's group; ``committed`` reads them.
    A second command with the same replay id fences the first."""

    def __init__(
        self,
        publisher: KafkaPublisher,
        committed: Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int]],
        *,
        attempts: int,
        backoff_s: float,
        timeout_s: float,
    ) -> None:
        self._publisher = publisher
        self._committed = committed
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._timeout_s = timeout_s

    def start(self) -> None:
        """Abort a transaction that an earlier run left open. Raises StreamFailed."""
        self._repeat(lambda: self._publisher.ready(self._timeout_s))

    def publish(
        self, outputs: Sequence[Outgoing], next_offsets: Sequence[NextOffset], smaller: Replace
    ) -> None:
        """Publish a batch exactly once. Nothing is published after StreamFailed, or after
        OutputRefused: the broker refuses one of its records."""
        batch = list(outputs)

        def once() -> None:
            while True:
                try:
                    self._publisher.publish(Batch(batch, next_offsets))
                except RecordTooLarge as error:
                    for index in error.indexes:
                        batch[index] = smaller(index, batch[index], str(error))
                except OutcomeUnknown:
                    if self._was_published(next_offsets):
                        return
                    raise
                else:
                    return

        self._repeat(once)

    def close(self) -> None:
        """Close the client."""
        self._publisher.close()

    def _was_published(self, next_offsets: Sequence[NextOffset]) -> bool:
        """Settle a commit without an answer: initializing a new producer commits or aborts it."""
        self._repeat(lambda: self._publisher.ready(self._timeout_s))
        found = self._committed([following.source for following in next_offsets])
        return all(found.get(following.source, 0) >= following.offset for following in next_offsets)

    def _repeat(self, call: Callable[[], None]) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                call()
            except OutputRefused:
                raise  # the same batch will be refused again
            except PublishAborted as error:
                if attempt == self._attempts:
                    raise StreamFailed(
                        f"publishing failed {attempt} times ({error}): run the same command again "
                        "to resume"
                    ) from error
                _log.warning("replay.not_published", attempt=attempt, error=str(error))
                time.sleep(min(_MAX_BACKOFF_S, self._backoff_s * 2 ** (attempt - 1)))
            else:
                return
