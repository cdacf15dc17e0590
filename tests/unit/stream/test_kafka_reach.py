"""The cluster looked for at start-up: found, not there, or not the one that was meant."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.mock_kafka import MockKafka
from tests.support.policies import make_kafka_config
from worker.errors import EXIT_STREAM, StreamFailed
from worker.stream import kafka_reach
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_reach import reach

pytestmark = pytest.mark.slow


def test_a_cluster_that_is_there_tells_its_topics(
    broker: MockKafka, configured: Callable[..., KafkaConfig]
) -> None:
    """At once."""
    broker.create_topic("in")
    begin = time.monotonic()
    _, topics = reach(configured())
    assert set(topics) == {"in"}
    assert time.monotonic() - begin < 2


def test_nobody_there_is_told_after_the_time_that_is_set() -> None:
    """In one line: where it was looked for, how long, and what to check."""
    config = make_kafka_config(bootstrap_servers="127.0.0.1:1", start_timeout_s=0.5)
    with pytest.raises(StreamFailed) as caught:
        reach(config)
    said = str(caught.value)
    assert said.startswith("no access to Kafka at 127.0.0.1:1 within ")
    assert "kafka.bootstrap_servers" in said
    assert "Connection refused" in said
    assert "\n" not in said
    assert caught.value.exit_code == EXIT_STREAM


@pytest.fixture
def web_server() -> Iterator[str]:
    """Listens, and hangs up on whoever says something: no Kafka."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(1000)

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_port_of_something_else(web_server: str) -> None:
    """It hangs up, which is not the same as nobody being there."""
    config = make_kafka_config(bootstrap_servers=web_server, start_timeout_s=0.5)
    with pytest.raises(StreamFailed, match=f"^no access to Kafka at {web_server} ") as caught:
        reach(config)
    assert "Connection refused" not in str(caught.value)


def test_a_refusal_is_not_waited_for_as_long_as_an_outage(
    broker: MockKafka,
    configured: Callable[..., KafkaConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listener that takes no login will take none later: the settings are told, not the wait."""
    monkeypatch.setattr(kafka_reach, "_REFUSED_S", 0.4)
    login = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "clerk",
        "sasl.password": "hush-hush",
    }
    begin = time.monotonic()
    with pytest.raises(StreamFailed, match=f"^no access to Kafka at {broker.servers} ") as caught:
        reach(configured(security=login, start_timeout_s=60.0))
    assert time.monotonic() - begin < 10
    assert "hush" not in str(caught.value)
