"""From settings to librdkafka's properties: users may change them, except for the promises."""

from collections import Counter
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message, Producer

from tests.support.rig import make_kafka_config
from worker.errors import SettingsError
from worker.stream.kafka_config import KafkaConfig, check_bounds
from worker.stream.topics import Topics


@pytest.mark.parametrize("place", ["client", "consumer"])
def test_exactly_once_reads_committed_records_only(place: str) -> None:
    """Results of records whose transaction is aborted could not be taken back."""
    for value in ("read_uncommitted", "READ_UNCOMMITTED"):
        given: dict[str, Any] = {place: {"isolation.level": value}}
        with pytest.raises(
            SettingsError, match=rf"kafka\.{place}: 'isolation.level' must be read_committed"
        ):
            make_kafka_config(**given)
        assert make_kafka_config(delivery="at_least_once", **given)
    assert make_kafka_config(**{place: {"isolation.level": "READ_COMMITTED"}})


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize(
    ("side", "name", "bad", "good"),
    [
        ("producer", "acks", [0, 1, "1", "0"], ["all", -1, "-1", "ALL"]),
        ("producer", "request.required.acks", [1], ["all"]),
        ("producer", "max.in.flight", [6, "7", 1_000_000], [5, "1"]),
        ("producer", "max.in.flight.requests.per.connection", [6], [5]),
        ("producer", "retries", [0, "0"], [1, 2147483647]),
        ("producer", "message.send.max.retries", [0], [3]),
        ("consumer", "auto.offset.reset", ["latest", "LARGEST", "end"], ["smallest", "error"]),
    ],
)
def test_properties_that_may_lose_double_or_reorder_records_are_refused(
    side: str, name: str, bad: list[Any], good: list[Any], delivery: str
) -> None:
    for place in ("client", side):
        for value in bad:
            with pytest.raises(SettingsError, match=rf"kafka\.{place}: '{name}' must be "):
                make_kafka_config(delivery=delivery, **{place: {name: value}})
        for value in good:
            assert make_kafka_config(delivery=delivery, **{place: {name: value}})


def test_the_brokers_protocol_needs_statistics() -> None:
    with pytest.raises(SettingsError, match=r"statistics\.interval\.ms' must be above 0"):
        make_kafka_config(consumer={"group.protocol": "Consumer", "statistics.interval.ms": 0})
    assert make_kafka_config(consumer={"statistics.interval.ms": 0})


TOPICS = Topics(("in",), "out", "review", "dead")


def config(**changes: Any) -> KafkaConfig:
    return make_kafka_config(**{"bootstrap_servers": "b:9092", "topics": TOPICS, **changes})


def test_the_promises_by_default() -> None:
    made = config()
    assert made.consumer["enable.auto.commit"] is False
    assert made.consumer["enable.auto.offset.store"] is False
    assert made.consumer["isolation.level"] == "read_committed"
    assert made.consumer["auto.offset.reset"] == "earliest"
    assert made.consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert made.producer["enable.idempotence"] is True
    assert made.producer["acks"] == "all"
    assert made.producer["transactional.id"] == "t"
    for side in (made.consumer, made.producer):
        assert side["bootstrap.servers"] == "b:9092"
        assert side["client.id"] == "filing-clerk"
    assert "group.id" not in made.producer
    assert "transactional.id" not in made.consumer


def test_at_least_once_makes_no_transactions() -> None:
    producer = config(delivery="at_least_once").producer
    assert not [name for name in producer if name.startswith("transaction")]
    assert producer["enable.idempotence"] is True


@pytest.mark.parametrize("place", ["client", "consumer", "producer"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("enable.auto.commit", "offsets are committed with the results"),
        ("enable.auto.offset.store", "offsets are committed with the results"),
        ("auto.commit.enable", "offsets are committed with the results"),  # an older name
        ("offset.store.method", "offsets are committed with the results"),
        ("enable.idempotence", "set kafka.delivery"),
        ("transactional.id", "set kafka.instance_id, which is a part of it"),
        ("bootstrap.servers", "set kafka.bootstrap_servers"),
        ("metadata.broker.list", "set kafka.bootstrap_servers"),
        ("group.id", "set kafka.group_id"),
        ("enable.partition.eof", "does not stop at the end"),
        ("error_cb", "the worker sets it"),
        ("logger", "the worker sets it"),
    ],
)
def test_properties_that_the_promises_depend_on_cannot_be_set(
    place: str, name: str, hint: str
) -> None:
    with pytest.raises(SettingsError, match=rf"kafka\.{place}: '{name}' cannot be set: .*{hint}"):
        config(**{place: {name: "x"}})


def test_a_users_properties_override_defaults_and_those_of_one_client_override_both() -> None:
    made = config(
        client={"linger.ms": 50, "check.crcs": True, "client.id": "mine"},
        consumer={"auto.offset.reset": "error", "fetch.min.bytes": 5},
        producer={"compression.type": "none", "client.id": "mine too"},
    )
    assert made.producer["linger.ms"] == 50
    assert made.producer["compression.type"] == "none"
    assert made.producer["client.id"] == "mine too"
    assert made.consumer["check.crcs"] is True
    assert made.consumer["auto.offset.reset"] == "error"
    assert made.consumer["fetch.min.bytes"] == 5
    assert made.consumer["client.id"] == "mine"
    assert made.producer["acks"] == "all"


def test_security_goes_to_every_client() -> None:
    made = config(security={"security.protocol": "ssl"})
    for side in (made.common, made.consumer, made.producer):
        assert side["security.protocol"] == "ssl"


@pytest.mark.parametrize("place", ["client", "consumer"])
def test_the_brokers_group_protocol_sets_no_assignment_strategy(place: str) -> None:
    made = config(**{place: {"group.protocol": "consumer"}})
    assert made.consumer["group.protocol"] == "consumer"
    assert "partition.assignment.strategy" not in made.consumer
    assert made.consumer["isolation.level"] == "read_committed"


@pytest.mark.parametrize("place", ["client", "consumer"])
@pytest.mark.parametrize(
    "name", ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"]
)
def test_the_brokers_group_protocol_refuses_the_clients_settings(place: str, name: str) -> None:
    assert config(**{place: {name: "1"}}).consumer[name] == "1"
    with pytest.raises(SettingsError, match=rf"\['{name}'\] cannot be set with group.protocol"):
        config(**{place: {"group.protocol": "consumer", name: "1"}})


def test_sinks_are_named_once() -> None:
    assert TOPICS.sinks == ("out", "review", "dead")
    assert Topics(("in",), "out", None, "dead").sinks == ("out", "dead")
    assert Topics(("in",), "out", "out", "dead").sinks == ("out", "dead")


def test_an_iteration_that_could_cost_the_partitions_is_refused() -> None:
    made = config(consumer={"max.poll.interval.ms": 60_000})
    assert made.max_poll_interval_s == 60.0
    check_bounds(made, max_iteration_s=59.0)
    with pytest.raises(SettingsError, match=r"for 60 s .* allows 60 s: lower"):
        check_bounds(made, max_iteration_s=60.0)
    assert config().max_poll_interval_s == 300.0
    assert config(client={"max.poll.interval.ms": "7000"}).max_poll_interval_s == 7.0


def test_a_publish_may_not_outlast_its_transaction() -> None:
    """The broker would abort it while the worker still publishes."""
    long = config(publish_timeout_s=20.0)
    with pytest.raises(SettingsError, match=r"publish_timeout_s is 20 s, .*=15000: lower"):
        check_bounds(long, max_iteration_s=1.0)
    check_bounds(config(publish_timeout_s=15.0), max_iteration_s=1.0)
    check_bounds(config(publish_timeout_s=20.0, delivery="at_least_once"), max_iteration_s=1.0)
    longer = config(publish_timeout_s=20.0, producer={"transaction.timeout.ms": 30_000})
    check_bounds(longer, max_iteration_s=1.0)


@pytest.mark.parametrize("name", ["max.poll.interval.ms", "transaction.timeout.ms"])
def test_a_bound_that_is_not_a_number_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*'soon'"):
        check_bounds(config(client={name: "soon"}), max_iteration_s=1.0)


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
    """Produce records with the worker's own properties; return the partition of each."""
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


@pytest.mark.slow
def test_a_key_lands_where_java_puts_it() -> None:
    # As Kafka's BuiltInPartitioner: the sign bit is cleared.
    assert landed(list(JAVA)) == [(value & 0x7FFFFFFF) % PARTITIONS for value in JAVA.values()]


@pytest.mark.slow
def test_records_without_a_key_are_spread() -> None:
    found = Counter(landed([None] * 400, producer={"sticky.partitioning.linger.ms": 0}))
    assert set(found) == set(range(PARTITIONS))
