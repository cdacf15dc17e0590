"""The local broker itself: Apache Kafka from the package index, with Java from a wheel.

The first run on a machine downloads Kafka (45 MB) into the cache folder.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.support.topics import create_topics
from worker.demo.broker import LocalBroker
from worker.demo.client import Watcher, create_demo_topics
from worker.demo.kafka_files import BrokerError

ROOT = Path(__file__).parents[2]
QUIET: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}


@pytest.fixture(autouse=True)
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put temporary data under the test's own folder, so that the test sees all of it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def create_topic(broker: LocalBroker, topic: str) -> None:
    create_topics(broker.bootstrap_servers, [topic])


def produce_once(broker: LocalBroker, topic: str, value: bytes) -> KafkaError | None:
    """Produce without a retry: it fails unless the broker is ready to lead the partition."""
    reports: list[KafkaError | None] = []

    def report(error: KafkaError | None, _message: Message) -> None:
        reports.append(error)

    settings = {"bootstrap.servers": broker.bootstrap_servers, "retries": 0, **QUIET}
    producer = Producer(settings | {"message.timeout.ms": 3000})
    producer.produce(topic, value, on_delivery=report)
    producer.flush(10)
    assert len(reports) == 1
    return reports[0]


def produce_in_transaction(broker: LocalBroker, topic: str, value: bytes) -> None:
    settings = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "t", **QUIET}
    producer = Producer(settings)
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(20)


def read_committed(broker: LocalBroker, topic: str, count: int) -> list[bytes | None]:
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "reader", **QUIET}
    consumer = Consumer(settings | {"isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def ends_within(pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_data_survives_a_kill_and_the_next_start(tmp_path: Path) -> None:
    """Restarted, it has its address, and takes records at once. The next broker on the folder has
    other properties."""
    folder, log = tmp_path / "kept data", tmp_path / "kafka.log"
    with LocalBroker(folder, log_path=log) as broker:
        create_topic(broker, "letters")
        produce_in_transaction(broker, "letters", b"before")
        address, pid = broker.bootstrap_servers, broker.pid
        assert pid is not None
        broker.kill()
        assert broker.pid is None
        assert not is_alive(pid)
        broker.restart()
        assert broker.bootstrap_servers == address
        assert produce_once(broker, "letters", b"after") is None
    with LocalBroker(folder, log_path=log, properties={"message.max.bytes": 5000}) as broker:
        assert read_committed(broker, "letters", 2) == [b"before", b"after"]
        refused = produce_once(broker, "letters", b"x" * 9000)
        assert refused is not None
        assert refused.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert log.read_text().count("Formatting") == 1


def test_nothing_is_left_afterwards(temp_folder: Path) -> None:
    """Also when the body raises."""
    events: list[str] = []
    broker = LocalBroker(on_event=events.append)
    pids: list[int] = []

    def fail_while_it_runs() -> None:
        with broker:
            assert broker.pid is not None
            pids.append(broker.pid)
            assert is_alive(broker.pid)
            assert os.getsid(broker.pid) == broker.pid  # so Ctrl-C does not reach it
            assert broker.data_dir.parent == temp_folder
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_it_runs()
    assert not is_alive(pids[0])
    assert list(temp_folder.iterdir()) == []
    assert events[-2] == "starting Apache Kafka 4.2.1"
    assert events[-1].startswith(f"Apache Kafka is ready at {broker.bootstrap_servers} after ")


def test_a_data_folder_in_use_is_named_and_a_damaged_one_fails_at_once(tmp_path: Path) -> None:
    """The latter within seconds, with the end of the broker's log."""
    folder = tmp_path / "data"
    with LocalBroker(folder) as first:
        create_topic(first, "letters")
        with pytest.raises(BrokerError, match=r"data folder .*data is in use by another broker"):
            LocalBroker(folder).start()
        assert produce_once(first, "letters", b"still here") is None
    (folder / "kafka-logs" / "meta.properties").write_text("version=1\ncluster.id=other\n")
    began = time.monotonic()
    with pytest.raises(BrokerError, match=r"(?s)ended while starting.*broker\.log ends:\n.*node"):
        LocalBroker(folder).start()
    assert time.monotonic() - began < 20


def test_a_port_in_use_is_named(temp_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is in use"):
            LocalBroker(port=port).start()
    assert list(temp_folder.iterdir()) == []


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program with an empty PATH that started a broker from a thread that has ended."""
    source = """
import sys, threading, time
from worker.demo.broker import LocalBroker
broker = LocalBroker(sys.argv[1])
starter = threading.Thread(target=broker.start)
starter.start()
starter.join()
print(broker.pid, flush=True)
sys.stdin.readline()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path / "data")],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "JAVA_HOME"} | {"PATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is a Linux feature")
def test_the_broker_dies_with_its_program(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    time.sleep(0.5)
    assert is_alive(pid)  # although the thread that started it has ended
    program.send_signal(signal.SIGKILL)
    assert ends_within(pid, 5)


def test_created_topics_exist_at_once(bootstrap_servers: str, topic: Callable[[str], str]) -> None:
    """The broker hears of topics a moment after the controller has created them. Without waiting,
    half of such starts ended in a KeyError."""
    for attempt in range(10):
        for names in ("abcd", "e"):
            topics = dict.fromkeys((topic(f"{attempt}.{name}") for name in names), len(names))
            create_demo_topics(bootstrap_servers, topics)
        Watcher(bootstrap_servers, dict.fromkeys(topics, "correction")).close()
