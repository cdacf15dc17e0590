"""The whole worker, on an in-process broker. ``tests/e2e`` runs it with Kafka and a model."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from structlog.testing import capture_logs

from tests.support.follower import AdapterStore, FakeLoader, ToyFiles
from tests.support.mock_kafka import MockKafka
from tests.support.toy_adapter import ENCODERS, ONE, TWO, by_length, decode, scores, small_manifest
from worker import app, serving
from worker.app import run_worker
from worker.contract import Manifest, load_adapter
from worker.contract.errors import MessageRejected
from worker.contract.store import Pointer, write_pointer
from worker.engine.fake import FakeEngine
from worker.engine.memory import TooLarge
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import RestartNeeded, StreamFailed
from worker.offline.records import read_range
from worker.policies import kafka_config
from worker.settings import (
    AdapterSettings,
    HttpSettings,
    KafkaSettings,
    ModelSettings,
    Settings,
)
from worker.stream.topics import RecordRange

pytestmark = pytest.mark.slow

COUNT = 20

Opener = Callable[[Settings], OpenedEngine]


@pytest.fixture
def settings(broker: MockKafka) -> Settings:
    for topic in ("in", "out", "review", "dead"):
        broker.create_topic(topic)
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=broker.servers,
            input_topics=("in",),
            output_topic="out",
            review_topic="review",
            dead_letter_topic="dead",
            start_timeout_s=5,
            consumer={"fetch.wait.max.ms": 10},
        ),
        http=HttpSettings(port=0),
    )


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def publish(broker: MockKafka, values: Sequence[bytes]) -> None:
    producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
    for value in values:
        producer.produce("in", value)
    assert producer.flush(10) == 0


def messages() -> list[bytes]:
    return [json.dumps({"id": str(n), "message": f"parcel {n}"}).encode() for n in range(COUNT)]


def read(settings: Settings, topic: str) -> list[bytes]:
    whole = RecordRange(offsets={0: (0, None)})
    records = read_range(kafka_config(settings.kafka), topic, whole, 1000)
    return [record.value or b"" for record in sorted(records, key=lambda record: record.offset)]


def results(settings: Settings) -> list[tuple[str, str]]:
    """Id and adapter of each label."""
    records = [json.loads(value) for value in read(settings, "out")]
    return [(record["id"], record["adapter"]["digest"]) for record in records]


def opener(signal_at: int | None = COUNT) -> Opener:
    """An engine that refuses some messages, and sends SIGTERM after a number of prompts."""
    asked = 0
    lock = threading.Lock()

    def respond(prompt: Sequence[int]) -> Answer | Exception:
        nonlocal asked
        with lock:
            asked += 1
            if asked == signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
        if "hard" in decode([token for token in prompt if token >= 10]):
            return MessageRejected("engine_rejected", "no")
        return scores("delivery", p=0.95)

    def opened(_: Settings) -> OpenedEngine:
        engine = FakeEngine(respond, service_s=0.0005)
        return OpenedEngine(engine, small_manifest(), ENCODERS, "merged")

    return opened


@pytest.mark.usefixtures("handlers")
def test_each_message_gets_its_label_and_sigterm_drains(
    broker: MockKafka, settings: Settings
) -> None:
    publish(broker, [b"{", *messages()])
    with capture_logs() as logs:
        run_worker(settings, opener())
    events = [entry["event"] for entry in logs]
    ready, stopping = events.index("worker.ready"), events.index("worker.stopping")
    assert ready < stopping < events.index("worker.drained")
    assert logs[ready]["adapter"] == small_manifest().name
    assert logs[stopping]["signal"] == "SIGTERM"
    ids = [json.loads(value)["message_id"] for value in read(settings, "out")]
    assert ids == [str(number) for number in range(COUNT)]
    assert read(settings, "dead") == [b"{"]


class Followed:
    """A store that a worker follows, whose adapters are served by engines without a model."""

    def __init__(self, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = AdapterStore(folder)
        self.loader = FakeLoader()
        self.settings = settings.model_copy(
            update={
                "model": ModelSettings(adapter=folder),
                "adapters": AdapterSettings(when_too_large="restart"),
            }
        )
        monkeypatch.setattr(serving, "open_engine", self._open)
        monkeypatch.setattr(app, "begin_to_open_model", lambda _: None)
        # They have no base, and need none here.
        monkeypatch.setattr(app, "adapter_problems", lambda *_, **__: [])

    def answer(self, manifest: Manifest, before: Callable[[], None]) -> None:
        """Call ``before`` when this adapter labels its first message."""
        first = iter([before])
        answers = by_length(manifest)

        def respond(prompt: Sequence[int]) -> Answer | Exception:
            if len(prompt) > len(manifest.golden[0].ids):  # a message, no probe
                next(first, lambda: None)()
            return answers(prompt)

        self.loader.respond[manifest.digest] = respond

    def _open(self, *, adapter: Path, **_: Any) -> OpenedEngine:
        manifest = load_adapter(adapter)
        engine = self.loader.load(adapter, manifest)
        files = ToyFiles(manifest.base)
        return OpenedEngine(engine, manifest, ENCODERS, "merged", self.loader, files)


@pytest.fixture
def followed(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Followed:
    return Followed(tmp_path, settings, monkeypatch)


@pytest.mark.usefixtures("handlers")
def test_an_adapter_without_room_is_served_after_a_restart_that_loses_nothing(
    broker: MockKafka, followed: Followed
) -> None:
    store, loader = followed.store, followed.loader
    publish(broker, messages())
    store.publish(ONE)

    def publish_two() -> None:
        loader.failures = [TooLarge("two", "takes 19 GiB, and 4 are left")]
        store.publish(TWO)

    followed.answer(ONE, publish_two)
    with (
        capture_logs() as logs,
        pytest.raises(RestartNeeded, match=r"two .* restart: takes 19") as caught,
    ):
        run_worker(followed.settings)
    assert caught.value.exit_code == 7
    events = [entry["event"] for entry in logs]
    assert events.index("adapter.restarting") < events.index("worker.drained")
    assert "adapter.refused" not in events
    assert loader.open == []
    labelled = results(followed.settings)
    assert len(dict(labelled)) == len(labelled) > 0
    assert {digest for _, digest in labelled} == {ONE.digest}
    assert serving.open_model(followed.settings, watch=True).manifest.digest == TWO.digest


@pytest.mark.usefixtures("handlers")
def test_an_adapter_that_failed_at_the_start_is_served_later(
    broker: MockKafka, followed: Followed
) -> None:
    """For instance on a file system that shows a directory later than its pointer."""
    store = followed.store
    store.publish(ONE)
    pointer = Pointer(
        TWO.digest, TWO.name, "2024-05-06T07:09:00Z", ONE.digest, "ann", None, "publish"
    )
    write_pointer(store.folder, pointer)
    swapped = threading.Event()

    def add_two() -> None:
        store.add(TWO)

    def end() -> None:
        swapped.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def keep_publishing() -> None:
        while not swapped.wait(0.05):
            publish(broker, messages()[:1])

    followed.answer(ONE, add_two)
    followed.answer(TWO, end)
    sender = threading.Thread(target=keep_publishing)
    sender.start()
    try:
        with capture_logs() as logs:
            run_worker(followed.settings)
    finally:
        swapped.set()
        sender.join()
    events = [entry["event"] for entry in logs]
    assert events.index("adapter.declined_at_start") < events.index("worker.ready")
    assert events.index("worker.ready") < events.index("adapter.swapped")
    assert {digest for _, digest in results(followed.settings)} == {ONE.digest, TWO.digest}


@pytest.mark.usefixtures("handlers")
def test_what_fails_fast_fails_before_a_model_is_loaded(
    broker: MockKafka, settings: Settings
) -> None:

    def unopened(_: Settings) -> OpenedEngine:
        raise AssertionError("a model is loaded for nothing")

    broker.fail_topic("out", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(StreamFailed, match=r"may not write the topic 'out' \(kafka\.output_topic"):
        run_worker(settings, unopened)


@pytest.mark.usefixtures("handlers")
def test_a_signal_before_there_is_a_loop_ends_it_at_once(settings: Settings) -> None:

    def slow(_: Settings) -> OpenedEngine:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)
        raise AssertionError("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        run_worker(settings, slow)
