"""What the order of the steps in a transaction costs, on the local broker.

    python -m tests.bench.transaction [--rounds 100]

A transaction's records are flushed and then its offsets sent, or the offsets are sent while the
records are on their way. Both in turn, by one producer with the worker's settings, for one record
and for five hundred; medians and quartiles in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from worker.demo.broker import LocalBroker
from worker.demo.client import create_demo_topics

_TIMEOUT_S = 10.0
_PAUSE_S = 0.03
_SIZES = (1, 500)
_PRODUCER = {
    "transactional.id": "bench",
    "acks": "all",
    "compression.type": "zstd",
    "linger.ms": 2,
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 50,
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    with LocalBroker() as broker:
        servers: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers}
        create_demo_topics(broker.bootstrap_servers, {"in": 1, "out": 1})
        producer = Producer({**servers, **_PRODUCER})
        producer.init_transactions(_TIMEOUT_S)
        consumer = Consumer({**servers, "group.id": "bench", "auto.offset.reset": "earliest"})
        consumer.subscribe(["in"])
        while not consumer.assignment():
            consumer.poll(0.1)
        for size in _SIZES:
            found: dict[str, list[float]] = {"flushed first": [], "offsets first": []}
            for number in range(rounds):
                for order, times in found.items():
                    consumer.poll(0)
                    offsets = [TopicPartition("in", 0, number)]
                    times.append(
                        transaction(producer, consumer, offsets, size, flush=order[0] == "f")
                    )
                    time.sleep(_PAUSE_S)
            for order, times in found.items():
                low, middle, high = statistics.quantiles(times[rounds // 10 :], n=4)
                print(f"{size} records, {order}: {middle:.2f} ms ({low:.2f} to {high:.2f})")
        consumer.close()
    return 0


def transaction(producer: Any, consumer: Any, offsets: Any, size: int, *, flush: bool) -> float:
    """Publish so many records and their offsets; return the milliseconds that it took."""
    began = time.perf_counter()
    producer.begin_transaction()
    for _ in range(size):
        producer.produce("out", b"a result of about this length " * 13)
    if flush:
        producer.flush(_TIMEOUT_S)
    group = consumer.consumer_group_metadata()
    producer.send_offsets_to_transaction(offsets, group, _TIMEOUT_S)
    producer.flush(_TIMEOUT_S)
    producer.commit_transaction(_TIMEOUT_S)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    sys.exit(main())
