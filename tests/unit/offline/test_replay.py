"""A replay from the choice to the published results, on an in-process broker and a fake engine.

``tests/ports/test_replay.py`` kills it half-way, on a real broker.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import AdapterStore
from tests.support.kafka_world import KafkaWorld
from tests.support.mock_kafka import MockKafka
from tests.support.rig import too_large, toy_record
from tests.support.toy_adapter import (
    ENCODERS,
    ONE,
    decode,
    scores,
    small_manifest,
    toy_serving_adapter,
)
from worker.contract.errors import MessageRejected
from worker.contract.records import Replay, read_dead_letter, read_output, read_replay
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    SettingsError,
    StreamFailed,
)
from worker.offline.classify import label_in_order
from worker.offline.message_files import record_row
from worker.offline.records import ReadResult, ScanProgress, read_result
from worker.offline.replay import ReplayRequest, ReplayResult, ReplayWriter, run_replay
from worker.offline.replay_plan import Criteria
from worker.policies import kafka_config
from worker.records.types import Batch, NextOffset, Outgoing, Record, TopicPartition
from worker.settings import KafkaSettings, LoopSettings, RecordSettings, Settings
from worker.stream.kafka_scan import TopicScanner
from worker.stream.port import Sink
from worker.stream.topics import RecordRange, Topics

pytestmark = pytest.mark.slow

COUNT = 28
BUG = Replay("bug-17", "2026-03-02T08:00:00Z", "a bug")
DEAD = Criteria(dead_letters=True)


def opener(settings: Settings) -> OpenedEngine:
    """An engine that labels everything alike and refuses some messages."""
    del settings

    def respond(prompt: Sequence[int]) -> Answer | Exception:
        text = decode([token for token in prompt if token >= 10])
        if "hard" in text:
            return MessageRejected("engine_rejected", "no")
        return scores("delivery", p=0.9)

    return OpenedEngine(FakeEngine(respond, service_s=0.0005), small_manifest(), ENCODERS, "merged")


def unopened(settings: Settings) -> OpenedEngine:
    raise AssertionError(f"a model is loaded for nothing: {settings.model}")


@pytest.fixture
def world(broker: MockKafka) -> tuple[KafkaWorld, list[Record]]:
    """Everything is labelled, except for a seventh that are dead letters, four of them."""
    made = KafkaWorld(broker.servers, create_topic=broker.create_topic)
    values = [b"hard" if number == 6 else b"a parcel" for number in range(COUNT)]
    records = made.publish_inputs(values, batch=COUNT)
    made.publish([made.result(record) for record in records], batch=COUNT)
    return made, records


@pytest.fixture
def settings(world: tuple[KafkaWorld, list[Record]]) -> Settings:
    made, _ = world
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=made.servers,
            group_id=made.run,
            input_topics=(made.topics["in"],),
            output_topic=made.topics["out"],
            review_topic=made.topics["review"],
            dead_letter_topic=made.topics["dead"],
            start_timeout_s=5,
        ),
        loop=LoopSettings(max_in_flight=3, deadline_s=5),
        records=RecordSettings(format="text"),
    )


def request(criteria: Criteria = DEAD, **changes: Any) -> ReplayRequest:
    given = ReplayRequest(BUG, criteria, None, "current", execute=True)
    return replace(given, **changes)


def read(settings: Settings, topic: str) -> list[ReadResult]:
    """Every result on a topic."""
    with TopicScanner(kafka_config(settings.kafka)) as scanner, ScanProgress() as progress:
        ranges = {source: (log.start, log.end) for source, log in scanner.spans(topic).items()}
        dead = settings.kafka.dead_letter_topic
        return [read_result(one, dead) for one in progress.read(scanner, topic, ranges)]


def replayed(settings: Settings) -> Counter[tuple[str, int, int]]:
    """By topic, input partition and offset the results of a replay."""
    kafka = settings.kafka
    return Counter(
        (topic, result.source.partition, result.offset)
        for topic in (kafka.output_topic, str(kafka.review_topic), kafka.dead_letter_topic)
        for result in read(settings, topic)
        if result.replay is not None
    )


def reached(settings: Settings, next_offsets: dict[int, int]) -> None:
    """Commit the replay's progress, as a broker does with a transaction."""
    kafka = settings.kafka
    group = kafka.model_copy(update={"group_id": f"{kafka.group_id}.replay.{BUG.id}"})
    (topic,) = kafka.input_topics
    with TopicScanner(kafka_config(group)) as scanner:
        scanner.commit(
            [NextOffset(TopicPartition(topic, at), offset) for at, offset in next_offsets.items()]
        )


def chosen_of(result: ReplayResult) -> int:
    return sum(result.chosen.values())


def test_dead_letters_get_the_result_that_they_should_have_had(
    world: tuple[KafkaWorld, list[Record]], settings: Settings
) -> None:
    made, records = world
    dead = {(r.source.partition, r.offset): r.value for r in records if r.offset % 7 == 3}
    first = run_replay(settings, request(), opener)
    assert (first.labelled, first.dead) == (len(dead) - 1, 1)
    assert chosen_of(first) == len(dead) == 4
    assert first.resumed_at == {}
    assert replayed(settings) == Counter(
        (made.topics["dead" if value == b"hard" else "out"], *place)
        for place, value in dead.items()
    )


def test_it_resumes_at_its_groups_offsets(settings: Settings) -> None:
    run_replay(settings, request(), opener)
    reached(settings, {0: 4, 1: 0})
    rest = run_replay(settings, request(), opener)
    assert (rest.chosen, rest.resumed_at) == ({0: 1, 1: 2}, {0: 4, 1: 0})
    assert Counter(place[1:] for place in replayed(settings).elements())[0, 3] == 1
    reached(settings, {0: 99, 1: 99})
    assert chosen_of(run_replay(settings, request(), unopened)) == 0


def test_a_range_alone_is_each_record_in_it(
    world: tuple[KafkaWorld, list[Record]], settings: Settings
) -> None:
    """Offsets are an upper bound of records, because transaction markers use some."""
    _, records = world
    meant = {(1, r.offset) for r in records if r.source.partition == 1 and r.offset >= 4}
    within = RecordRange(offsets={1: (4, 200)})
    done = run_replay(settings, request(Criteria(), records=within), opener)
    assert done.at_most
    assert done.chosen == {1: len(meant) + 1}
    assert done.labelled + done.dead == len(meant)
    assert {place[1:] for place in replayed(settings)} == meant


def test_one_name_is_one_replay(settings: Settings) -> None:
    run_replay(settings, request(), opener)
    with pytest.raises(SettingsError, match=r"^--id bug-17: .* begun with other choices"):
        run_replay(settings, request(Criteria(review=True)), unopened)


def test_one_replay_is_by_one_adapter(settings: Settings, tmp_path: Path) -> None:
    """The current adapter may change before a replay is resumed."""
    store = AdapterStore(tmp_path)
    store.publish(small_manifest())
    model = settings.model.model_copy(update={"adapter": tmp_path})
    settings = settings.model_copy(update={"model": model})
    run_replay(settings, request(), opener)
    reached(settings, {0: 4, 1: 0})
    store.publish(ONE)
    begun_with = small_manifest().digest[:16]
    with pytest.raises(
        SettingsError,
        match=f"^--id bug-17: .* begun with the adapter {begun_with}, not {ONE.digest[:16]}: give "
        f"--adapter {begun_with} to resume",
    ):
        run_replay(settings, request(), unopened)
    rest = run_replay(settings, request(adapter=begun_with), opener)
    assert rest.resumed_at == {0: 4, 1: 0}


def test_a_replay_is_marked_by_when_it_was_begun(settings: Settings) -> None:
    run_replay(settings, request(), opener)
    reached(settings, {0: 4, 1: 0})
    run_replay(settings, request(replay=replace(BUG, at="2026-03-09T08:00:00Z")), opener)
    kafka = settings.kafka
    marks = {
        result.replay.at
        for topic in (kafka.output_topic, kafka.dead_letter_topic)
        for result in read(settings, topic)
        if result.replay is not None
    }
    assert marks == {BUG.at}


REPLAY = Replay("bug-17", "2026-03-02T08:00:00Z", "bug 17")
TOPICS = Topics(("in",), "out", "review", "dead")


def respond(prompt: Sequence[int]) -> Answer | Exception:
    text = decode([token for token in prompt if token >= 10])  # without control tokens
    if "refuse" in text:
        return MessageRejected("engine_rejected", "too long")
    return scores("delivery", 0.3 if "doubt" in text else 0.9)


class Scripted:
    """A sink that fails by a script: each failure says whether the batch was published."""

    def __init__(self, *script: tuple[Exception, bool]) -> None:
        self.script = list(script)
        self.published: list[Batch] = []
        self.offsets: dict[TopicPartition, int] = {}

    def publish(self, batch: Batch) -> None:
        """Do as the script says."""
        error, happened = self.script.pop(0) if self.script else (None, True)
        if happened:
            self.published.append(batch)
            self.offsets |= {following.source: following.offset for following in batch.next_offsets}
        if error is not None:
            raise error

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """Where the group is."""
        return [NextOffset(at, self.offsets[at]) for at in partitions if at in self.offsets]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ReplayWriter]:
    """Label records and write them to a sink, without waiting between two attempts."""
    adapter = toy_serving_adapter(FakeEngine(respond, service_s=0.0))

    def labelled_and_written(sink: Sink, *records: Record) -> ReplayWriter:
        rows = [record_row(record, adapter.labeller.layout) for record in records]
        results = list(label_in_order(adapter.labeller, adapter.engine, rows, silence_s=5))
        with monkeypatch.context() as patched:
            patched.setattr("worker.offline.replay.time.sleep", lambda _: None)
            writer = ReplayWriter(Settings(), sink, TOPICS, REPLAY)
            writer.write(adapter, [(row.record, outcome) for row, outcome in results])
        return writer

    return labelled_and_written


def written(sink: Scripted) -> list[Outgoing]:
    return [output for batch in sink.published for output in batch.outputs]


def test_outcomes_are_the_workers_and_carry_the_replay(write: Callable[..., ReplayWriter]) -> None:
    records = [
        toy_record(value, offset=offset)
        for offset, value in enumerate((b"where is it", b"doubt", b"refuse", b"", None))
    ]
    sink = Scripted()
    writer = write(sink, *records)
    results = written(sink)
    assert [result.topic for result in results] == ["out", "review", "dead", "dead", "dead"]
    assert (writer.labelled, writer.dead) == (2, 3)
    for record, result in zip(records, results, strict=True):
        assert result.key == record.key
        if result.topic == "dead":
            assert read_dead_letter(result.headers).id == record.id
            assert read_replay(result.headers) == REPLAY
        else:
            assert read_output(result.value).id == record.id
            assert json.loads(result.value or b"")["replay"]["id"] == "bug-17"
    refused = read_dead_letter(results[2].headers)
    assert (refused.reason, refused.attempts) == ("engine_rejected", 2)


def test_what_is_too_large_becomes_smaller_and_keeps_the_mark(
    write: Callable[..., ReplayWriter],
) -> None:
    for failures, value in ((1, b"hi"), (2, None)):
        sink = Scripted(*[(too_large([0]), False)] * failures)
        write(sink, toy_record(b"hi"))
        (letter,) = written(sink)
        assert (letter.topic, letter.value) == ("dead", value)
        assert read_dead_letter(letter.headers).reason == "output_too_large"
        assert read_replay(letter.headers) == REPLAY


@pytest.mark.parametrize(
    "script",
    [
        (),
        ((PublishAborted("no"), False), (PublishAborted("no"), False)),
        ((OutcomeUnknown("?"), True),),
        ((OutcomeUnknown("?"), False),),
        ((OutcomeUnknown("?"), False), (PublishAborted("no"), False)),
    ],
)
def test_a_batch_is_published_once(
    script: tuple[tuple[Exception, bool], ...], write: Callable[..., ReplayWriter]
) -> None:
    """Also if a commit is not answered, whether it happened or not."""
    sink = Scripted(*script)
    write(sink, toy_record(b"hi"))
    assert [output.topic for output in written(sink)] == ["out"]


class Picky(Scripted):
    """A sink that refuses batches with one of these labels, without naming the record."""

    def __init__(self, *refused: int) -> None:
        super().__init__()
        self.refused = {toy_record(offset=offset).id for offset in refused}

    def publish(self, batch: Batch) -> None:
        """Refuse it, or take it."""
        labels = [read_output(each.value).id for each in batch.outputs if each.topic == "out"]
        if self.refused.intersection(labels):
            raise OutputRefused("INVALID_RECORD: no key")
        super().publish(batch)


@pytest.mark.parametrize("refused", [(), (0,), (19,), (3, 4, 11), tuple(range(20))])
def test_a_record_that_the_broker_refuses_is_a_dead_letter_and_the_rest_is_published(
    refused: tuple[int, ...], write: Callable[..., ReplayWriter]
) -> None:
    """Otherwise the same batch would fail each time the replay is resumed."""
    sink = Picky(*refused)
    records = [toy_record(b"hi", offset=offset) for offset in range(20)]
    writer = write(sink, *records)
    dead = [read_dead_letter(each.headers) for each in written(sink) if each.topic == "dead"]
    assert len(written(sink)) == 20
    assert [letter.offset for letter in dead] == list(refused)
    assert {letter.reason for letter in dead} <= {"output_refused"}
    assert (writer.labelled, writer.dead) == (20 - len(refused), len(refused))
    assert sink.offsets == {records[0].source: 20}


def test_it_gives_up_after_so_many_attempts(write: Callable[..., ReplayWriter]) -> None:
    sink = Scripted(*[(PublishAborted("no"), False)] * 10)
    with pytest.raises(StreamFailed, match="run the same command again"):
        write(sink, toy_record(b"hi"))
    assert sink.published == []
