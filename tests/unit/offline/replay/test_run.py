"""A replay from the choice to what it publishes, on a broker in this process and a fake engine.

``tests/ports/test_replay.py`` kills it half-way, on a real broker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.follower import AdapterStore
from tests.support.kafka_world import KafkaWorld
from tests.support.mock_kafka import MockKafka
from tests.support.swapping import ONE
from tests.support.toy_adapter import ENCODERS, decode, scores, small_manifest
from worker.contract.records import Replay
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import MessageRejected, SettingsError, StreamFailed
from worker.offline.replay.run import ReplayRequest, ReplayResult, run_replay
from worker.offline.replay.select import Criteria
from worker.offline.results import ReadResult, read_result
from worker.offline.scan_progress import ScanProgress
from worker.policies import kafka_config
from worker.records.types import NextOffset, Record, TopicPartition
from worker.settings import LoopSettings, RecordSettings, Settings
from worker.settings_kafka import KafkaSettings
from worker.stream.kafka_scan import TopicScanner
from worker.stream.record_range import RecordRange

pytestmark = pytest.mark.slow

COUNT = 28
BUG = Replay("bug-17", "2026-03-02T08:00:00Z", "a bug")
DEAD = Criteria(dead_letters=True)


def opener(settings: Settings) -> OpenedEngine:
    """An engine that labels all alike, but for what is too hard."""
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
    """Everything labelled, but for a seventh that are dead letters, four of them."""
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
    given = ReplayRequest(BUG, criteria, None, "current", {}, execute=True)
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
    """Commit the progress of the replay's group: a broker does when a transaction is committed."""
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
    """Each one once, and marked; what is refused again is a dead letter again."""
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


def test_it_goes_on_where_its_group_stands(settings: Settings) -> None:
    """What was done is not counted, and not done again; when all is, no model is loaded."""
    run_replay(settings, request(), opener)
    reached(settings, {0: 4, 1: 0})
    rest = run_replay(settings, request(), opener)
    assert (rest.chosen, rest.resumed_at) == ({0: 1, 1: 2}, {0: 4, 1: 0})
    assert Counter(place[1:] for place in replayed(settings).elements())[0, 3] == 1
    reached(settings, {0: 99, 1: 99})
    assert chosen_of(run_replay(settings, request(), unopened)) == 0


def test_counting_opens_no_model_and_writes_nothing(settings: Settings) -> None:
    """That is what is done without --execute."""
    counted = run_replay(settings, request(execute=False), unopened)
    assert (chosen_of(counted), counted.labelled) == (4, 0)
    assert not counted.at_most
    assert not replayed(settings)


def test_a_range_alone_is_each_record_in_it(
    world: tuple[KafkaWorld, list[Record]], settings: Settings
) -> None:
    """Its offsets are an upper bound of its records: a transaction marker is one too."""
    _, records = world
    meant = {(1, r.offset) for r in records if r.source.partition == 1 and r.offset >= 4}
    within = RecordRange(offsets={1: (4, 200)})
    done = run_replay(settings, request(Criteria(), records=within), opener)
    assert done.at_most
    assert done.chosen == {1: len(meant) + 1}
    assert done.labelled + done.dead == len(meant)
    assert {place[1:] for place in replayed(settings)} == meant


def test_a_choice_within_a_range(settings: Settings) -> None:
    """Both narrow it."""
    within = RecordRange(offsets={0: (0, 5), 1: (4, 99)})
    counted = run_replay(settings, request(records=within, execute=False), unopened)
    assert dict(counted.chosen) == {0: 1, 1: 1}


def test_one_name_is_one_replay(settings: Settings) -> None:
    """Its progress means nothing for other choices: they are refused before a model is loaded."""
    run_replay(settings, request(), opener)
    with pytest.raises(SettingsError, match=r"^--id bug-17: .* begun with other choices"):
        run_replay(settings, request(Criteria(review=True)), unopened)


def test_one_replay_is_by_one_adapter(settings: Settings, tmp_path: Path) -> None:
    """What is current may change before it is gone on with: half of the results would be another
    adapter's. It says which one it was begun with, before a model is loaded."""
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
        match=f"^--id bug-17: .* begun with the adapter {begun_with}, and this is {ONE.digest[:16]}"
        f": --adapter {begun_with}, or another --id",
    ):
        run_replay(settings, request(), unopened)
    rest = run_replay(settings, request(adapter=begun_with), opener)
    assert rest.resumed_at == {0: 4, 1: 0}


def test_a_replay_is_marked_by_when_it_was_begun(settings: Settings) -> None:
    """Also what is done of it later: the latest replay holds, whole."""
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


def test_results_may_go_to_another_topic(
    broker: MockKafka, world: tuple[KafkaWorld, list[Record]], settings: Settings
) -> None:
    """For a look before anybody sees them. One that does not exist is told before the model."""
    made, _ = world
    to = {"output_topic": f"{made.run}.aside", "dead_letter_topic": f"{made.run}.aside.dead"}
    before = len(read(settings, made.topics["out"]))
    with pytest.raises(StreamFailed, match=f"do not exist at .*: {made.run}.aside, "):
        run_replay(settings, request(to=to), unopened)
    for topic in to.values():
        broker.create_topic(topic)
    with capture_logs():
        done = run_replay(settings, request(to=to), opener)
    assert (done.labelled, done.dead) == (3, 1)
    assert len(read(settings, to["output_topic"])) == 3
    assert len(read(settings, made.topics["out"])) == before
