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

from worker.contract import read_manifest
from worker.contract.records import Replay
from worker.core.assignment import Assignment, Backpressure, CompletedRecord
from worker.core.labeller import ServingAdapter
from worker.core.publisher import PUBLISH_MAX_RECORDS, BatchPublisher, TopicRouter
from worker.errors import SettingsError, StreamFailed
from worker.observe.progress import LogListener
from worker.offline.adapters import CURRENT, resolve_adapter
from worker.offline.classify import label_in_order
from worker.offline.message_files import record_row
from worker.offline.records import ScanProgress, has_no_result
from worker.offline.replay_plan import Criteria, make_plan, make_selector
from worker.policies import kafka_config, loop_policy
from worker.records.types import Batch, NextOffset, Outcome, Record, Tombstone, TopicPartition
from worker.serving import Opener, make_serving_adapter, open_model
from worker.settings import ModelSettings, Settings
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_publish import KafkaPublisher
from worker.stream.kafka_scan import TopicScanner
from worker.stream.kafka_topics import prepare_topics
from worker.stream.output_schemas import make_serializers
from worker.stream.port import Sink
from worker.stream.topics import RecordRange, Topics


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The records to label again, the replay's identity, and the adapter.

    ``adapter`` is a name for ``resolve_adapter``. Without ``execute`` records are only counted.
    ``topic`` is the input topic if there are several.
    """

    replay: Replay
    criteria: Criteria
    records: RecordRange | None
    adapter: str
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


# It labels by itself. To publish the records to the input topic again would give their results new
# ids, or else any publisher could claim the id of another record. Its own group holds only offsets,
# so that they can be committed in the transactions that publish.
def run_replay(
    settings: Settings, request: ReplayRequest, opener: Opener = open_model
) -> ReplayResult:
    """Count, and with ``execute`` label and publish. Raises WorkerStopped, AdapterRefused."""
    selector = make_selector(request.criteria, request.records, request.replay.id)
    own = _own_settings(settings, request.replay.id)
    config = kafka_config(own.kafka)
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
            ready = prepare_topics(config)
            adapter = stack.enter_context(_opened(own, model, opener))
            sink = stack.enter_context(closing(ReplaySink(ready, scanner)))
            if begun is None:
                scanner.write_note(config.topics.dead_letter, f"{note} {request.replay.at}")
            replay = begun or request.replay
            # Read the offsets again: an earlier run that still lived is fenced only now.
            records = plan.records(scanner, progress, scanner.committed(list(plan.ranges)))
            writer = ReplayWriter(own, sink, ready.topics, replay, make_serializers(ready))
            _label_all(own, adapter, writer, records)
            labelled, dead = writer.labelled, writer.dead
    return ReplayResult(
        own.kafka.group_id,
        {partition.partition: count for partition, count in left.items()},
        {partition.partition: offset for partition, offset in done.items()},
        plan.expired,
        plan.selected is None,
        labelled,
        dead,
    )


def _own_settings(settings: Settings, replay_id: str) -> Settings:
    """Return the settings with the replay's own group.

    The transactional.id is derived from group and instance, so it is the same in every run: of two
    commands with the same replay id the later one fences the earlier.
    """
    group = f"{settings.kafka.group_id}.replay.{replay_id}"
    kafka = settings.kafka.model_copy(
        update={
            "group_id": group,
            # Whatever the workers use: progress and results must not come apart.
            "delivery": "exactly_once",
            # The workers have created them: a missing one is a mistake in the settings.
            "create_topics": False,
            "instance_id": "replay",
        }
    )
    return settings.model_copy(update={"kafka": kafka})


def _label_all(
    settings: Settings, adapter: ServingAdapter, writer: ReplayWriter, records: Iterable[Record]
) -> None:
    """Label and publish in batches, each of them one transaction."""
    iterator = iter(records)
    while read := list(islice(iterator, min(settings.loop.max_in_flight, PUBLISH_MAX_RECORDS))):
        batch = [each for each in read if not has_no_result(each, settings.records.tombstones)]
        rows = [record_row(record, adapter.labeller.layout) for record in batch]
        results = label_in_order(
            adapter.labeller, adapter.engine, rows, silence_s=settings.loop.deadline_s
        )
        labelled = {_place(row.record): outcome for row, outcome in results}
        # A tombstone has no result to make again, but its offset counts towards the replay's.
        skipped = Tombstone(forwarded=False)
        writer.write(adapter, [(each, labelled.get(_place(each), skipped)) for each in read])


class ReplayWriter:
    """Publishes a replay's results exactly once, with the publisher of the worker's loop.

    That one repeats what was aborted, settles a commit that got no answer, and makes dead letters
    of records that the broker refuses. Here every record is finished when it is added, so nothing
    waits behind an unfinished one.
    """

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        topics: Topics,
        replay: Replay,
        serializers: Mapping[str, Callable[[bytes], bytes]] | None = None,
    ) -> None:
        policy = loop_policy(settings)
        self._listener = LogListener(time.monotonic)
        self._assignment = Assignment()
        self._pressure = Backpressure(policy.bounds)
        self._publisher = BatchPublisher(
            sink,
            assignment=self._assignment,
            pressure=self._pressure,
            topic_router=TopicRouter(
                topics.output, topics.review, replay=replay, serializers=serializers or {}
            ),
            listener=self._listener,
            policy=policy,
            clock=time.monotonic,
            now=lambda: datetime.now(UTC),
            wait=time.sleep,
        )

    @property
    def labelled(self) -> int:
        """The number of published labels."""
        return self._listener.totals["output"] + self._listener.totals["review"]

    @property
    def dead(self) -> int:
        """The number of published dead letters."""
        return self._listener.totals["dead_letter"]

    def write(self, adapter: ServingAdapter, results: Sequence[tuple[Record, Outcome]]) -> None:
        """Publish these results, in order within a partition, and the offsets after them. Waits
        while Kafka is unreachable. Raises StreamFailed."""
        for record, outcome in results:
            if record.source not in self._assignment:
                self._assignment.begin([record.source])
            partition = self._assignment.get(record.source)
            assert partition is not None
            partition.watermark.add(record.offset)
            partition.watermark.finish(record.offset, CompletedRecord(record, outcome, adapter))
            partition.size_bytes += record.size_bytes
            self._pressure.take(record.size_bytes)
        try:
            while self._assignment.ready:
                self._publisher.try_publish()
        except StreamFailed as error:
            raise StreamFailed(f"{error}: run the same command again to resume") from error


class ReplaySink:
    """See ``Sink``: commits the offsets of the replay's group, which has no members.

    Raises StreamFailed if the producer cannot start. Of two commands with the same replay id, the
    later one fences the earlier.
    """

    def __init__(self, config: KafkaConfig, scanner: TopicScanner) -> None:
        self._scanner = scanner
        self._publisher = KafkaPublisher(config, scanner)
        self._publisher.start()

    def publish(self, batch: Batch) -> None:
        """See ``Sink``."""
        self._publisher.publish(batch)

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """See ``Sink``."""
        self._publisher.resolve()
        return [NextOffset(*found) for found in self._scanner.committed(partitions).items()]

    def close(self) -> None:
        """Close the client."""
        self._publisher.close()


def _place(record: Record) -> tuple[TopicPartition, int]:
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
            f"{name} other choices or another range: repeat those to resume it, or give "
            "another --id"
        )
    if request.execute and adapter != begun_adapter:  # counting needs no adapter
        raise SettingsError(
            f"{name} the adapter {begun_adapter}, not {adapter}: give --adapter {begun_adapter} to "
            "resume it, or another --id"
        )
    return replace(request.replay, at=at)


def _note(request: ReplayRequest, model: ModelSettings) -> str:
    """Return what must be the same in every run of a replay: choices and adapter."""
    choices = repr((request.criteria, request.records))
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
def _opened(settings: Settings, model: ModelSettings, opener: Opener) -> Iterator[ServingAdapter]:
    opened = opener(settings.model_copy(update={"model": model}))
    with closing(opened.engine):
        yield make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine)
