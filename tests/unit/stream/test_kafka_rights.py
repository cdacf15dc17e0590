"""Rights before the model is loaded: all that are missing at once, each with its setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

from tests.support.mock_kafka import INIT_PRODUCER_ID, MockKafka
from worker.errors import StreamFailed
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_reach import reach
from worker.stream.kafka_rights import check_rights, named_in
from worker.stream.topics import Topics

Configured = Callable[..., KafkaConfig]
ALL = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE)
READ = (AclOperation.READ, AclOperation.DESCRIBE)


class Admin:
    """Stands in for the client on a cluster with rights: by topic or group what may be done to it,
    or the code of the error that whoever asks is answered with."""

    def __init__(self, rights: Mapping[str, tuple[AclOperation, ...] | int | None]) -> None:
        self.rights = rights

    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        return {name: self._about(name) for name in topics.topic_names}

    def describe_consumer_groups(self, groups: list[str], **_: Any) -> dict[str, Future[Any]]:
        return {name: self._about(name) for name in groups}

    def _about(self, name: str) -> Future[Any]:
        answer: Future[Any] = Future()
        found = self.rights.get(name, ALL)
        if isinstance(found, int):
            answer.set_exception(KafkaException(KafkaError(found)))
        else:
            answer.set_result(SimpleNamespace(authorized_operations=found))
        return answer


def check(config: KafkaConfig, **rights: tuple[AclOperation, ...] | int | None) -> None:
    check_rights(cast("AdminClient", Admin(rights)), config)


def test_whoever_may_all_goes_on(configured: Configured) -> None:
    """Also where the broker has no rights, does not say, or knows no such group yet."""
    check(configured())
    check(configured(), out=None, g=None)
    check(configured(), g=KafkaError.GROUP_ID_NOT_FOUND, out=KafkaError._TIMED_OUT)
    # One that does not exist: it is told elsewhere, and may be created.
    check(configured(), out=KafkaError.UNKNOWN_TOPIC_OR_PART)


def test_all_that_is_missing_is_told_at_once(configured: Configured) -> None:
    """Who may not do what to what, and in which setting it is named."""
    login = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "clerk",
        "sasl.password": "hush-hush",
    }
    config = configured(bootstrap_servers="kafka:9092", security=login)
    denied = KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(StreamFailed) as caught:
        check(config, dead=READ, g=(AclOperation.DESCRIBE,), **{"in": denied})
    assert str(caught.value) == (
        "the user 'clerk' may not read the topic 'in' (kafka.input_topics), nor write the topic "
        "'dead' (kafka.dead_letter_topic), nor read as the consumer group 'g' (kafka.group_id) at "
        "kafka:9092: have these rights (ACLs) given to it, or name others in the settings; what "
        "does not exist may look forbidden"
    )


def test_a_user_without_a_name(configured: Configured) -> None:
    """Known by a certificate: it is the worker's."""
    with pytest.raises(StreamFailed, match=r"^the worker's user may not write the topic 'out' "):
        check(configured(), out=READ)


def test_each_topic_is_told_by_its_setting() -> None:
    """A topic that comes from several settings by the one that reads it."""
    topics = Topics(("a", "b"), "out", "review", "dead", "shadow")
    found = {topic: named_in(topics, topic) for topic in ("b", *topics.sinks)}
    assert found == {
        "b": "kafka.input_topics",
        "out": "kafka.output_topic",
        "review": "kafka.review_topic",
        "dead": "kafka.dead_letter_topic",
        "shadow": "adapters.shadow_topic",
    }


def test_the_transactional_id_is_tried(broker: MockKafka, configured: Configured) -> None:
    """It is the only way to ask. What passes by itself is no reason not to start."""
    for topic in ("in", "out", "review", "dead"):
        broker.create_topic(topic)
    config = configured()
    admin, _ = reach(config)
    check_rights(admin, config)
    broker.fail_next(INIT_PRODUCER_ID, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    with pytest.raises(StreamFailed, match=r"the transactional id 't' \(kafka\.group_id"):
        check_rights(admin, config)
    broker.fail_next(INIT_PRODUCER_ID, KafkaError.UNSUPPORTED_VERSION)
    check_rights(admin, config)
