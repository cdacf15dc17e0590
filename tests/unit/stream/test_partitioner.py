"""A key's records lie where Java clients put them, so that streams can be joined by key."""

import random
from collections import Counter
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message, Producer

from tests.support.murmur2 import java_partition, murmur2
from tests.support.policies import make_kafka_config

pytestmark = pytest.mark.slow

PARTITIONS = 4  # of a topic that librdkafka's mock cluster makes by itself

# From the tests of Kafka's own ``Utils.murmur2`` (UtilsTest.testMurmur2).
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def landed(keys: list[bytes | None], **changes: Any) -> list[int]:
    """Produce these keys with the worker's own properties; return the partition of each."""
    config = make_kafka_config(delivery="at_least_once", **changes)
    properties = {name: value for name, value in config.producer.items() if name[:4] != "boot"}
    producer = Producer({**properties, "test.mock.num.brokers": 1, "log_level": 0})
    found: dict[bytes, int] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        value, partition = message.value(), message.partition()
        assert (error, value is None, partition is None) == (None, False, False)
        found[cast("bytes", value)] = cast("int", partition)

    for number, key in enumerate(keys):
        producer.produce("t", b"%d" % number, key=key, on_delivery=delivered)
    assert producer.flush(20) == 0
    return [found[b"%d" % number] for number in range(len(keys))]


@pytest.mark.parametrize(("key", "expected"), JAVA.items())
def test_the_hash_that_the_others_are_measured_by_is_javas(key: bytes, expected: int) -> None:
    """By the numbers that Kafka's own tests have."""
    assert murmur2(key) == expected


def test_a_key_lands_where_java_puts_it() -> None:
    """Short and long keys, bytes above 127, the empty key."""
    numbers = random.Random(7)
    keys = [*JAVA, b"", *(numbers.randbytes(numbers.randrange(1, 40)) for _ in range(300))]
    assert landed(list(keys)) == [java_partition(key, PARTITIONS) for key in keys]


def test_records_without_a_key_are_spread() -> None:
    """They have no neighbours to lie beside."""
    found = Counter(landed([None] * 400, producer={"sticky.partitioning.linger.ms": 0}))
    assert set(found) == set(range(PARTITIONS))


def test_another_partitioner_can_be_chosen() -> None:
    """For neighbours that are librdkafka's, with its own default before."""
    keys: list[bytes | None] = [b"k%d" % number for number in range(100)]
    chosen = landed(keys, producer={"partitioner": "consistent_random"})
    assert chosen != landed(keys)
