"""Topics before the worker joins: missing, created, forbidden, and their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from tests.support.mock_kafka import INIT_PRODUCER_ID, MockKafka
from worker.errors import StreamFailed
from worker.stream import kafka_topics
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_reach import reach
from worker.stream.kafka_topics import check_rights, is_compacted, prepare_topics
from worker.stream.topics import Topics

Configured = Callable[..., KafkaConfig]
ALL = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE)
READ = (AclOperation.READ, AclOperation.DESCRIBE)


class RightsAdmin:
    """Replaces the client on a cluster with ACLs. ``rights``: by topic or group the allowed
    operations, None if unknown, or an error code."""

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
    check_rights(cast("AdminClient", RightsAdmin(rights)), config)


def test_the_check_of_rights_passes_if_none_is_known_to_be_missing(configured: Configured) -> None:
    check(configured())
    check(configured(), out=None, g=None)
    check(configured(), g=KafkaError.GROUP_ID_NOT_FOUND, out=KafkaError._TIMED_OUT)
    # A missing topic is reported elsewhere, and may be created.
    check(configured(), out=KafkaError.UNKNOWN_TOPIC_OR_PART)


def test_all_missing_rights_are_reported_at_once(configured: Configured) -> None:
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
        "kafka:9092: grant it these rights (ACLs), or change the settings. Something that does not "
        "exist may also be reported as forbidden"
    )


@pytest.mark.parametrize(("right", "missing"), [(AclOperation.READ, "write"),
                                                (AclOperation.WRITE, "read")])  # fmt: skip
def test_the_retry_topic_needs_both_rights(
    configured: Configured, right: AclOperation, missing: str
) -> None:
    config = configured(topics=replace(NO_REVIEW, retry="retry"))
    with pytest.raises(StreamFailed, match=rf"may not {missing} the topic 'retry' \(kafka\.retry_"):
        check(config, retry=(right, AclOperation.DESCRIBE))


def test_the_right_to_the_transactional_id_is_tried(
    broker: MockKafka, configured: Configured
) -> None:
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


def test_missing_topics_are_named_with_two_remedies(
    broker: MockKafka, configured: Configured
) -> None:
    for topic in ("in", "review"):
        broker.create_topic(topic)
    with pytest.raises(StreamFailed) as caught:
        prepare_topics(configured())
    assert str(caught.value) == (
        f"these topics do not exist at {broker.servers}: out, dead. "
        "Create them, or set kafka.create_topics = true"
    )


def test_a_cluster_that_returns_no_configurations_is_accepted(
    broker: MockKafka, configured: Configured
) -> None:
    for topic in ("in", "out", "review", "dead"):
        broker.create_topic(topic)
    config = configured()
    with capture_logs() as logs:
        found = prepare_topics(config, rights=True)
        assert found.cluster_id
        assert replace(found, cluster_id="") == config
        assert is_compacted(config, "in") is False
    events = [entry["event"] for entry in logs]
    assert events.count("stream.size_limit_unknown") == 3
    assert events[-1] == "stream.cleanup_policy_unknown"


def test_the_topics_that_a_pattern_matches_are_logged(
    broker: MockKafka, configured: Configured
) -> None:
    for topic in ("shop.de", "shop.fr", "out", "dead"):
        broker.create_topic(topic)

    def matched(pattern: str) -> dict[str, Any]:
        with capture_logs() as logs:
            prepare_topics(configured(topics=Topics((pattern,), "out", None, "dead")))
        (found,) = [dict(entry) for entry in logs if entry["event"] == "stream.topics_matched"]
        return found

    found = matched("^shop\\.")
    assert (found["log_level"], found["topics"]) == ("info", ["shop.de", "shop.fr"])
    found = matched("^store\\.")
    assert (found["log_level"], found["count"]) == ("warning", 0)


class Value(NamedTuple):
    """One property of a topic, as the client gives it."""

    value: str | None


class Admin:
    """Replaces the client on a cluster that returns configurations and creates topics.

    ``known``: by topic its properties, an error code, or "hangs" for no answer. ``late``: how many
    requests come before the broker knows a topic. ``created``: how creating a topic ends, with
    None, an error code, or "hangs".
    """

    def __init__(
        self,
        known: Mapping[str, Any],
        created: Mapping[str, Any] | None = None,
        late: Mapping[str, int] | None = None,
    ) -> None:
        self.known = known
        self.created = created or {}
        self.late = dict(late or {})
        self.asked: list[tuple[str, int, int]] = []
        self.described: list[list[str]] = []

    def describe_configs(self, resources: list[Any]) -> dict[Any, Future[dict[str, Value]]]:
        self.described.append([resource.name for resource in resources])
        return {resource: self._known(resource.name) for resource in resources}

    def create_topics(self, topics: list[Any]) -> dict[str, Future[None]]:
        self.asked += [
            (topic.topic, topic.num_partitions, topic.replication_factor) for topic in topics
        ]
        return {topic.topic: self._created(topic.topic) for topic in topics}

    def _known(self, topic: str) -> Future[dict[str, Value]]:
        answer: Future[dict[str, Value]] = Future()
        if self.late.get(topic, 0) > 0:
            self.late[topic] -= 1
            answer.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
            return answer
        match self.known.get(topic, {}):
            case "hangs":
                pass
            case int(code):
                answer.set_exception(KafkaException(KafkaError(code)))
            case found:
                answer.set_result({name: Value(text) for name, text in found.items()})
        return answer

    def _created(self, topic: str) -> Future[None]:
        answer: Future[None] = Future()
        match self.created.get(topic):
            case "hangs":
                pass
            case int(code):
                answer.set_exception(KafkaException(KafkaError(code)))
            case _:
                answer.set_result(None)
        return answer


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Admin]:
    """Replaces the client that has reached the cluster."""

    def reached(known: Mapping[str, Any], found: tuple[str, ...] = (), **given: Any) -> Admin:
        client = Admin(known, **given)
        reached = SimpleNamespace(topics=found, cluster_id="here")
        monkeypatch.setattr(kafka_topics, "reach", lambda _: (client, reached))
        return client

    return reached


def limits(out: str, dead: str) -> dict[str, dict[str, str]]:
    """The size limits of the topics out and dead."""
    return {"out": {"max.message.bytes": out}, "dead": {"max.message.bytes": dead}}


EVERY = ("in", "out", "dead")
NO_REVIEW = Topics(("in",), "out", None, "dead")


def test_the_client_refuses_no_record_that_a_topic_accepts(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    admin(limits("1000000", "300000"), EVERY)
    made = prepare_topics(configured(topics=NO_REVIEW))
    assert made.max_record_bytes == {"out": 1_000_000, "dead": 300_000}
    assert made.producer["message.max.bytes"] == 32_000_000
    assert made.producer["batch.size"] == 300_000
    plain = prepare_topics(configured(topics=NO_REVIEW, producer={"compression.type": "none"}))
    assert plain.producer["message.max.bytes"] == 1_000_000
    own = prepare_topics(configured(topics=NO_REVIEW, producer={"message.max.bytes": 5000}))
    assert own.producer["message.max.bytes"] == 5000


def test_a_record_larger_than_a_brokers_request_is_not_tried(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    """Unless a topic's own limit is higher."""
    for limit, tried in (("10000000", 64 * 1024 * 1024), ("90000000", 90_000_000)):
        admin(limits(limit, limit), EVERY)
        made = prepare_topics(configured(topics=NO_REVIEW))
        assert made.producer["message.max.bytes"] == tried


def test_a_topic_with_a_forbidden_configuration_does_not_hide_the_others_limits(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    for forbidden in (KafkaError.TOPIC_AUTHORIZATION_FAILED, {}, {"max.message.bytes": "?"}):
        admin({**limits("1000", "1"), "dead": forbidden}, EVERY)
        assert prepare_topics(configured(topics=NO_REVIEW)).max_record_bytes == {"out": 1000}


def test_the_inputs_retention_is_known_if_it_is_limited_and_may_be_read(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    topics = Topics(("^in", "more"), "out", None, "dead")
    known = {
        **limits("1000", "1000"),
        "in1": {"retention.ms": "604800000"},
        "in2": {"retention.ms": "-1"},
        "in3": KafkaError.TOPIC_AUTHORIZATION_FAILED,
        "more": {"retention.ms": "1500"},
    }
    admin(known, ("in1", "in2", "in3", "more", "out", "dead"))
    made = prepare_topics(configured(topics=topics))
    assert made.retention_s == {"in1": 604_800.0, "more": 1.5}


def test_missing_topics_are_created_as_the_settings_say(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    exists = {"out": KafkaError.TOPIC_ALREADY_EXISTS}
    client = admin({}, ("in",), created=exists)
    prepare_topics(configured(topics=NO_REVIEW, create_topics=True, topic_partitions=12))
    assert client.asked == [("out", 12, -1), ("dead", 12, -1)]


def test_a_broker_that_does_not_know_a_new_topic_yet_is_asked_again(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    """The controller has created it, and each broker learns of it a moment later."""
    compacted = {"cleanup.policy": "compact,delete"}
    topics = replace(NO_REVIEW, retry="again")
    config = configured(topics=topics, create_topics=True)
    known = {**limits("1000", "300"), "in": {"retention.ms": "1500"}}
    client = admin({**known, "again": {"cleanup.policy": "delete"}}, late={"out": 2, "in": 1})
    made = prepare_topics(config)
    assert made.max_record_bytes == {"out": 1000, "dead": 300}
    assert made.retention_s == {"in": 1.5}
    assert client.described == [["again", "dead", "in", "out"], ["in", "out"], ["out"]]
    admin({**known, "again": compacted}, late={"again": 2})
    with pytest.raises(StreamFailed, match=r"kafka\.retry_topic.* is compacted"):
        prepare_topics(config)


def test_the_wait_for_a_new_topic_has_a_timeout(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    config = configured(topics=NO_REVIEW, start_timeout_s=0.12)
    for known, late, said in (
        (limits("1000", "300"), {"out": 1_000_000}, "UNKNOWN_TOPIC_OR_PART"),
        ({**limits("1000", "300"), "out": "hangs"}, {}, "TimeoutError"),
    ):
        client = admin({**known, "in": {"retention.ms": "-1"}}, EVERY, late=late)
        with capture_logs() as logs:
            assert prepare_topics(config).max_record_bytes == {"dead": 300}
        assert [(entry["topic"], entry["error"]) for entry in logs] == [("out", said)]
        assert client.described[0] == ["dead", "in", "out"]
        assert client.described[1:] == [["out"]] * (len(client.described) - 1)
        assert len(client.described) <= 4


def test_a_topic_that_cannot_be_created_stops_the_start(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    forbidden = KafkaError.TOPIC_AUTHORIZATION_FAILED
    for ends_with, said in ((forbidden, "authorization"), ("hangs", r"no answer within 0\.05 s$")):
        admin({}, ("in", "out"), created={"dead": ends_with})
        config = configured(topics=NO_REVIEW, create_topics=True, start_timeout_s=0.05)
        with pytest.raises(StreamFailed, match=f"^cannot create the topic dead: .*{said}"):
            prepare_topics(config)


def test_compacted_topics_are_recognized(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    policies = {"in": "delete", "a": "compact", "b": "compact,delete"}
    admin({topic: {"cleanup.policy": policy} for topic, policy in policies.items()}, (*policies,))
    found = {topic: is_compacted(configured(), topic) for topic in policies}
    assert found == {"in": False, "a": True, "b": True}


def test_a_compacted_topic_of_results_causes_a_warning(
    admin: Callable[..., Admin], configured: Configured
) -> None:
    """It refuses results without a key and keeps only a key's last result. The input may be
    compacted; a topic with an unknown policy causes no warning."""
    config = configured(topics=Topics(("in",), "out", "review", "dead", "shadow"))
    plain, compacted = {"cleanup.policy": "delete"}, {"cleanup.policy": "compact,delete"}
    known = {"in": compacted, "out": compacted, "review": plain, "dead": compacted, "shadow": {}}
    admin(known, (*known,))
    with capture_logs() as logs:
        prepare_topics(config)
    warnings = [entry for entry in logs if entry["event"] == "stream.topic_compacted"]
    assert [(entry["topic"], entry["setting"]) for entry in warnings] == [
        ("out", "kafka.output_topic"),
        ("dead", "kafka.dead_letter_topic"),
    ]
    assert {entry["log_level"] for entry in warnings} == {"warning"}
    assert "stream.cleanup_policy_unknown" not in [entry["event"] for entry in logs]
