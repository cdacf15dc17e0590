"""A transaction that was open when the broker was killed."""

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support.topics import create_topics, read_all
from worker.demo.broker import LocalBroker

QUIET: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}
OPEN_FOR_MS = 3000


@pytest.mark.long  # it waits for a broker's session and a transaction's end
def test_a_transaction_that_was_open_is_aborted_everywhere(tmp_path: Path) -> None:
    """The transaction times out before the broker leads its partitions again. Kafka 4.3.0 to 4.4.0
    then writes no abort marker into those partitions (KAFKA-20734): the next transaction with
    its id would commit its records too, and its offsets would stay open for ever."""
    place = TopicPartition("in", 0, 7)
    with LocalBroker(log_path=tmp_path / "broker.log") as broker:
        client = {"bootstrap.servers": broker.bootstrap_servers, **QUIET}
        create_topics(broker.bootstrap_servers, ["in", "out"])
        group = Consumer({**client, "group.id": "clerk"})
        settings = {**client, "transactional.id": "clerk"}
        left = Producer({**settings, "transaction.timeout.ms": OPEN_FOR_MS})
        left.init_transactions(20)
        left.begin_transaction()
        left.produce("out", b"left open")
        assert left.flush(10) == 0
        left.send_offsets_to_transaction([place], group.consumer_group_metadata(), 10)

        broker.kill()
        time.sleep(OPEN_FOR_MS / 1000)
        broker.restart()

        heir = Producer(settings)
        heir.init_transactions(30)
        heir.begin_transaction()
        heir.produce("out", b"committed")
        heir.commit_transaction(20)
        assert read_all(broker.bootstrap_servers, "out") == [b"committed"]
        assert group.committed([place], timeout=10)[0].offset < 0
        group.close()
