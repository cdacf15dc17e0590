"""Checks before joining the group: topics exist, their limits, and the user's rights."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from worker.errors import StreamFailed
from worker.stream.kafka_config import KafkaConfig, compresses
from worker.stream.kafka_publish import BoundedCaller
from worker.stream.kafka_reach import reach
from worker.stream.kafka_types import client_log
from worker.stream.topics import Topics

_log = structlog.get_logger("worker.stream")

_COMPRESSION = 32
# A broker closes the connection on a request above its socket.request.max.bytes (100 MiB by
# default) without naming the record. A record that does not compress must stay below that.
_LARGEST_TRY_BYTES = 64 * 1024 * 1024

_LOGGED = 20

# The log event for a topic whose property is unknown.
_UNKNOWN = {
    "retention.ms": "stream.retention_unknown",
    "max.message.bytes": "stream.size_limit_unknown",
    "cleanup.policy": "stream.cleanup_policy_unknown",
}

_ASK_AGAIN_S = 0.05

# Replicas of a created topic: the cluster's ``default.replication.factor``. Managed clusters refuse
# other numbers.
_BROKERS_DEFAULT = -1

_T = TypeVar("_T")

_Answers = Mapping[str, Future[Any]]
"""By topic: its properties, or the error."""


def prepare_topics(config: KafkaConfig, *, rights: bool = False) -> KafkaConfig:
    """Check every topic, and create missing ones if the settings say so.

    ``rights``: also check the worker's rights to read and write.

    Returns the config with each topic's size limit and each input's retention, and with
    ``message.max.bytes`` raised so that the client does not refuse records that the broker accepts.
    Raises StreamFailed with a remedy.
    """
    admin, cluster = reach(config)
    found = cluster.topics
    config = replace(config, cluster_id=cluster.cluster_id or "")
    if rights:
        check_rights(admin, config)
    wanted = dict.fromkeys((*config.topics.named_inputs, *config.topics.sinks))
    missing = [topic for topic in wanted if topic not in found]
    if missing and not config.create_topics:
        raise StreamFailed(
            f"these topics do not exist at {config.bootstrap_servers}: {', '.join(missing)}. "
            "Create them, or set kafka.create_topics = true"
        )
    _create(admin, missing, config)
    _log_matches(config, found)
    inputs = sorted(topic for topic in {*found, *missing} if config.topics.is_input(topic))
    answers = _describe(admin, {*inputs, *wanted}, config)
    if config.topics.retry is not None and _compacts(answers, config.topics.retry):
        raise StreamFailed(
            f"the topic {config.topics.retry!r} (kafka.retry_topic) is compacted: of two waiting "
            "messages with the same key the first would be lost. Set its cleanup.policy=delete"
        )
    compacted = _warn_of_compacted(answers, config.topics)
    kept_ms = _numbers(answers, inputs, "retention.ms")
    limits = _numbers(answers, config.topics.sinks, "max.message.bytes")
    retention_s = {topic: kept / 1000 for topic, kept in kept_ms.items() if kept >= 0}
    known = replace(config, retention_s=retention_s, compacted=frozenset(compacted))
    return _with_size_limit(known, limits)


def _create(admin: AdminClient, missing: list[str], config: KafkaConfig) -> None:
    if not missing:
        return
    topics = [
        # One partition for the retry topic: the group's assignor counts partitions, and idle ones
        # would be balanced against the input's.
        NewTopic(
            topic,
            1 if topic == config.topics.retry else config.topic_partitions,
            _BROKERS_DEFAULT,
        )
        for topic in missing
    ]
    for topic, future in admin.create_topics(topics).items():
        try:
            future.result(timeout=config.start_timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StreamFailed(
                    f"cannot create the topic {topic}: {error.args[0].str()}"
                ) from error
        except TimeoutError as error:
            raise StreamFailed(
                f"cannot create the topic {topic}: no answer within {config.start_timeout_s:g} s"
            ) from error
        _log.info("stream.topic_created", topic=topic)


def _log_matches(config: KafkaConfig, found: Iterable[str]) -> None:
    """Log which topics the patterns match now. The client finds later ones by itself."""
    if len(config.topics.named_inputs) == len(config.topics.inputs):
        return
    matches = sorted(topic for topic in found if config.topics.is_input(topic))
    log = _log.info if matches else _log.warning
    log("stream.topics_matched", topics=matches[:_LOGGED], count=len(matches))


def _describe(admin: AdminClient, topics: Iterable[str], config: KafkaConfig) -> _Answers:
    """Request the configurations of existing topics, all in one request.

    A broker knows a new topic a moment later than the controller. It is asked again for
    ``start_timeout_s``: without the topic's limit, the client would refuse records that the topic
    accepts.
    """
    answers: dict[str, Future[Any]] = {}
    left = sorted(topics)
    deadline = time.monotonic() + config.start_timeout_s
    while True:
        asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in left])
        answers.update((resource.name, answer) for resource, answer in asked.items())
        wait(asked.values(), max(0.0, deadline - time.monotonic()))
        left = [name for name in left if _is_not_known_yet(answers[name])]
        if not left or time.monotonic() >= deadline:
            return answers
        time.sleep(_ASK_AGAIN_S)


def _is_not_known_yet(answer: Future[Any]) -> bool:
    error = answer.exception() if answer.done() else None
    return (
        isinstance(error, KafkaException)
        and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    )


def _property(
    answers: _Answers, topic: str, name: str, read: Callable[[str], _T], *, quiet: bool = False
) -> _T | None:
    """Return one property of a topic's configuration, None if it is unknown."""
    try:
        return read(str(answers[topic].result(timeout=0)[name].value))
    except (KafkaException, KeyError, TimeoutError, ValueError) as error:
        if quiet:
            return None
        # The right to read a topic's configuration is optional.
        reason = error.args[0].name() if isinstance(error, KafkaException) else type(error).__name__
        _log.info(_UNKNOWN[name], topic=topic, error=reason)
        return None


def _numbers(answers: _Answers, topics: Iterable[str], name: str) -> Mapping[str, int]:
    """Return one numeric property of the topics for which it is known."""
    read = {topic: _property(answers, topic, name, int) for topic in topics}
    return {topic: number for topic, number in read.items() if number is not None}


def _compacts(answers: _Answers, topic: str, *, quiet: bool = False) -> bool:
    return "compact" in (_property(answers, topic, "cleanup.policy", str, quiet=quiet) or "")


def _warn_of_compacted(answers: _Answers, topics: Topics) -> list[str]:
    """Return the compacted topics among the outputs, after a warning for each."""
    # Only a warning: if every message has a key and routers want the last result, it is intended.
    # Quiet if the policy is unknown, because the unknown size limit is logged already.
    compacted = [
        topic
        for topic in topics.sinks
        if topic != topics.retry and _compacts(answers, topic, quiet=True)
    ]
    for topic in compacted:
        _log.warning(
            "stream.topic_compacted",
            topic=topic,
            setting=topics.setting_of(topic),
            effect="refuses the result of a message without a key; keeps one result per key",
            remedy="set the topic's cleanup.policy=delete",
        )
    return compacted


def _with_size_limit(config: KafkaConfig, limits: Mapping[str, int]) -> KafkaConfig:
    if not limits:
        return config
    largest = max(limits.values())
    sizes = {
        # The client checks the size before compression, the broker afterwards. Support messages
        # shrink to a tenth, seldom to less than a thirtieth: larger records are not tried.
        "message.max.bytes": max(largest, min(_COMPRESSION * largest, _LARGEST_TRY_BYTES))
        if compresses(config.producer)
        else largest,
        # A batch is refused as a whole, so it must fit the topic with the lowest limit.
        "batch.size": min(1_000_000, *limits.values()),
    }
    return replace(config, producer={**sizes, **config.producer}, max_record_bytes=dict(limits))


def is_compacted(config: KafkaConfig, topic: str) -> bool:
    """Return whether a topic is compacted; False if its configuration cannot be read.

    Raises StreamFailed if the cluster cannot be reached.
    """
    admin, cluster = reach(config)
    return topic in cluster.topics and _compacts(_describe(admin, (topic,), config), topic)


_ASK_S = 10.0
_TRY_S = 5.0

_OPERATIONS = {"read": AclOperation.READ, "write": AclOperation.WRITE}

_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


def check_rights(admin: AdminClient, config: KafkaConfig) -> None:
    """Check the rights that the worker needs. Raises StreamFailed with all missing ones, each with
    its setting.

    Brokers return the user's rights with a description of a topic or group (KIP-430), so nothing is
    written or read to find out. If a broker does not return rights, the check passes, and a missing
    right shows when the worker reads and writes.
    """
    missing = [*_topic_rights(admin, config.topics), *_group_right(admin, config)]
    if not missing and config.delivery == "exactly_once":
        missing += _transaction_right(config)
    if missing:
        raise StreamFailed(
            f"{_user(config)} may not {', nor '.join(missing)} at {config.bootstrap_servers}: "
            "grant it these rights (ACLs), or change the settings. Something that does not exist "
            "may also be reported as forbidden"
        )


def _topic_rights(admin: AdminClient, topics: Topics) -> Iterator[str]:
    needed = {topic: ["read"] for topic in topics.named_inputs}
    needed |= {topic: ["write"] for topic in topics.sinks}
    if topics.retry is not None:
        needed[topics.retry] = ["read", "write"]
    answers = admin.describe_topics(
        TopicCollection([topic for topic in needed if topic]),
        include_authorized_operations=True,
        request_timeout=_ASK_S,
    )
    for topic, future in answers.items():
        for verb in needed[topic]:
            if _is_denied(future, _OPERATIONS[verb]):
                yield f"{verb} the topic {topic!r} ({topics.setting_of(topic)})"


def _group_right(admin: AdminClient, config: KafkaConfig) -> Iterator[str]:
    group = str(config.consumer["group.id"])
    answers = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=_ASK_S
    )
    if _is_denied(answers[group], AclOperation.READ):
        yield f"read as the consumer group {group!r} (kafka.group_id)"


def _transaction_right(config: KafkaConfig) -> Iterator[str]:
    # Using the transactional.id is the only way to find out. It fences no other worker: the id is
    # this process's own.
    name = config.producer["transactional.id"]
    quiet = {**config.producer, "log_level": 0}
    producer = Producer(quiet, error_cb=lambda _: None, logger=client_log)
    calls = BoundedCaller("transaction-right")
    try:
        calls.call(lambda: producer.init_transactions(_TRY_S), 2 * _TRY_S)
    except TimeoutError:
        return  # the call hangs: abandon it; the worker makes it again when it starts
    except KafkaException as error:
        if error.args[0].code() in _DENIED:
            yield f"write as the transactional id {name!r} (kafka.group_id begins it)"
        else:
            _log.info("stream.rights_unknown", error=error.args[0].name())
    calls.close()


def _is_denied(future: Any, operation: AclOperation) -> bool:
    try:
        allowed: Collection[AclOperation] | None = future.result(2 * _ASK_S).authorized_operations
    except TimeoutError:
        _log.info("stream.rights_unknown", error="no answer")
        return False
    except KafkaException as error:
        code = error.args[0].code()
        if code not in _DENIED and code != KafkaError.UNKNOWN_TOPIC_OR_PART:
            _log.info("stream.rights_unknown", error=error.args[0].name())
        return code in _DENIED
    # DESCRIBE is always allowed here, so an empty set means that the broker does not know.
    return bool(allowed) and operation not in (allowed or ())


def _user(config: KafkaConfig) -> str:
    user = config.common.get("sasl.username")
    return f"the user {user!r}" if user else "the worker's user"
