"""From settings to librdkafka properties: the user's win, the promises stay."""

from typing import Any

import pytest

from tests.support.policies import make_kafka_config
from worker.errors import SettingsError
from worker.stream.kafka_config import KafkaConfig, check_bounds
from worker.stream.topics import Topics

TOPICS = Topics(("in",), "out", "review", "dead")


def config(**changes: Any) -> KafkaConfig:
    return make_kafka_config(**{"bootstrap_servers": "b:9092", "topics": TOPICS, **changes})


def test_the_promises_by_default() -> None:
    """Exactly once needs these, and nobody has to know them."""
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
    """And needs no transactional rights."""
    producer = config(delivery="at_least_once").producer
    assert not [name for name in producer if name.startswith("transaction")]
    assert producer["enable.idempotence"] is True


@pytest.mark.parametrize("place", ["client", "consumer", "producer"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("enable.auto.commit", "offsets are committed with the results"),
        ("enable.auto.offset.store", "offsets are committed with the results"),
        ("enable.idempotence", "set kafka.delivery"),
        ("transactional.id", "set kafka.instance_id, which it is made of"),
        ("bootstrap.servers", "set kafka.bootstrap_servers"),
        ("group.id", "set kafka.group_id"),
        ("enable.partition.eof", "does not end with the log"),
        ("error_cb", "the worker's own"),
        ("logger", "the worker's own"),
    ],
)
def test_what_the_promises_rest_on_cannot_be_set(place: str, name: str, hint: str) -> None:
    """The refusal says what to set instead."""
    with pytest.raises(SettingsError, match=rf"kafka\.{place}: '{name}' cannot be set: .*{hint}"):
        config(**{place: {name: "x"}})


def test_a_users_properties_win_over_the_defaults() -> None:
    """Of one side or of both; and nothing else is changed."""
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


def test_one_side_wins_over_both() -> None:
    """The narrower place is the more deliberate one."""
    made = config(client={"retries": 1, "socket.timeout.ms": 1}, producer={"retries": 2})
    assert (made.producer["retries"], made.consumer["retries"]) == (2, 1)


def test_security_goes_to_every_client() -> None:
    """Consumer, producer and the administration at start-up."""
    made = config(security={"security.protocol": "ssl"})
    for side in (made.common, made.consumer, made.producer):
        assert side["security.protocol"] == "ssl"


@pytest.mark.parametrize("place", ["client", "consumer"])
def test_the_brokers_group_protocol_drops_what_it_refuses(place: str) -> None:
    """With group.protocol=consumer the broker assigns: the client's strategy would be an error."""
    made = config(**{place: {"group.protocol": "consumer"}})
    assert made.consumer["group.protocol"] == "consumer"
    assert "partition.assignment.strategy" not in made.consumer
    assert made.consumer["isolation.level"] == "read_committed"


@pytest.mark.parametrize("place", ["client", "consumer"])
@pytest.mark.parametrize(
    "name", ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"]
)
def test_the_brokers_group_protocol_refuses_the_clients_settings(place: str, name: str) -> None:
    """They would be without effect: told, not ignored."""
    assert config(**{place: {name: "1"}}).consumer[name] == "1"
    with pytest.raises(SettingsError, match=rf"\['{name}'\] cannot be set with group.protocol"):
        config(**{place: {"group.protocol": "consumer", name: "1"}})


def test_sinks_are_named_once() -> None:
    """A review topic may be left out or be the output itself."""
    assert TOPICS.sinks == ("out", "review", "dead")
    assert Topics(("in",), "out", None, "dead").sinks == ("out", "dead")
    assert Topics(("in",), "out", "out", "dead").sinks == ("out", "dead")


def test_an_iteration_that_could_cost_the_partitions_is_refused() -> None:
    """The group would take them away in the middle of a publish, again and again."""
    made = config(consumer={"max.poll.interval.ms": 60_000})
    assert made.max_poll_interval_s == 60.0
    check_bounds(made, max_iteration_s=59.0)
    with pytest.raises(SettingsError, match=r"for 60 s .* gives it 60 s: lower"):
        check_bounds(made, max_iteration_s=60.0)
    assert config().max_poll_interval_s == 300.0
    assert config(client={"max.poll.interval.ms": "7000"}).max_poll_interval_s == 7.0


def test_a_publish_may_not_outlast_its_transaction() -> None:
    """The broker would abort it under the worker's hands."""
    long = config(publish_timeout_s=20.0)
    with pytest.raises(SettingsError, match=r"publish_timeout_s is 20 s .*=15000: keep"):
        check_bounds(long, max_iteration_s=1.0)
    check_bounds(config(publish_timeout_s=15.0), max_iteration_s=1.0)
    check_bounds(config(publish_timeout_s=20.0, delivery="at_least_once"), max_iteration_s=1.0)
    longer = config(publish_timeout_s=20.0, producer={"transaction.timeout.ms": 30_000})
    check_bounds(longer, max_iteration_s=1.0)


@pytest.mark.parametrize("name", ["max.poll.interval.ms", "transaction.timeout.ms"])
def test_a_bound_that_is_no_number_is_told(name: str) -> None:
    """By its name, not by a traceback."""
    with pytest.raises(SettingsError, match=f"{name}.*'soon'"):
        check_bounds(config(client={name: "soon"}), max_iteration_s=1.0)
