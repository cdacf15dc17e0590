"""Before joining: are the topics there, and how large may a record be?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from worker.errors import StreamFailed
from worker.stream.kafka_config import KafkaConfig, compresses
from worker.stream.kafka_reach import reach
from worker.stream.kafka_rights import check_rights

_COMPRESSION = 32
# A broker closes the connection on a request above its socket.request.max.bytes, 100 MiB by
# default, without naming the record: what does not shrink must stay below.
_LARGEST_TRY_BYTES = 64 * 1024 * 1024

_LOGGED = 20

_UNKNOWN = {
    "retention.ms": "stream.retention_unknown",
    "max.message.bytes": "stream.size_limit_unknown",
}
"""What is logged of a topic that does not tell the property."""

_log = structlog.get_logger("worker.stream")


def prepare_topics(config: KafkaConfig, *, rights: bool = False) -> KafkaConfig:
    """Check, and if the settings say so create, every topic; learn their record size limit.

    ``rights``: also those of a worker to read and write.

    Returns the config with each topic's limit and each input's retention, and with
    ``message.max.bytes`` raised, so that the client does not refuse what the broker would accept.
    Raises StreamFailed with what to do.
    """
    admin, found = reach(config)
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
    if config.topics.retry is not None and _compacts(admin, config, config.topics.retry):
        raise StreamFailed(
            f"the topic {config.topics.retry!r} (kafka.retry_topic) is compacted: of two messages "
            "of one key that wait there the first would be dropped; set its cleanup.policy=delete"
        )
    _log_matches(config, found)
    inputs = [topic for topic in {*found, *missing} if config.topics.is_input(topic)]
    sinks = config.topics.sinks
    answers = _describe(admin, (*inputs, *sinks))
    kept_ms = _numbers(answers, sorted(inputs), "retention.ms", config)
    limits = _numbers(answers, sinks, "max.message.bytes", config)
    retention_s = {topic: kept / 1000 for topic, kept in kept_ms.items() if kept >= 0}
    return _with_size_limit(replace(config, retention_s=retention_s), limits)


def _create(admin: AdminClient, missing: list[str], config: KafkaConfig) -> None:
    if not missing:
        return
    topics = [
        # The group's assignor counts partitions: many of the retry topic, in which little is done,
        # would be dealt out against those of the input.
        NewTopic(
            topic,
            1 if topic == config.topics.retry else config.topic_partitions,
            config.topic_replication_factor,
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
    """Say what the patterns match now; later topics are found as the client's metadata age."""
    if len(config.topics.named_inputs) == len(config.topics.inputs):
        return
    matches = sorted(topic for topic in found if config.topics.is_input(topic))
    log = _log.info if matches else _log.warning
    log("stream.topics_matched", topics=matches[:_LOGGED], count=len(matches))


def _describe(admin: AdminClient, topics: Iterable[str]) -> Mapping[str, Future[Any]]:
    """Ask for the configurations of topics, all in one request."""
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    answers = admin.describe_configs(resources)
    return {resource.name: answer for resource, answer in answers.items()}


def _numbers(
    answers: Mapping[str, Future[Any]], topics: Iterable[str], name: str, config: KafkaConfig
) -> Mapping[str, int]:
    """Return one property of these topics' configurations, without topics that do not tell it."""
    found: dict[str, int] = {}
    for topic in topics:
        try:
            found[topic] = int(answers[topic].result(timeout=config.start_timeout_s)[name].value)
        except (KafkaException, KeyError, TimeoutError, ValueError) as error:
            # Reading a topic's configuration may be forbidden: it is then done without.
            _log.info(_UNKNOWN[name], topic=topic, error=type(error).__name__)
    return found


def _with_size_limit(config: KafkaConfig, limits: Mapping[str, int]) -> KafkaConfig:
    if not limits:
        return config
    largest = max(limits.values())
    sizes = {
        # The client compares before it compresses, the broker what it gets. Support messages shrink
        # to a tenth, seldom to less than a thirtieth: beyond that nothing is tried.
        "message.max.bytes": max(largest, min(_COMPRESSION * largest, _LARGEST_TRY_BYTES))
        if compresses(config.producer)
        else largest,
        # A batch is refused whole: it must fit the topic that takes least.
        "batch.size": min(1_000_000, *limits.values()),
    }
    return replace(config, producer={**sizes, **config.producer}, max_record_bytes=dict(limits))


def is_compacted(config: KafkaConfig, topic: str) -> bool:
    """Tell whether records of a topic that were superseded by key are dropped from its log.

    Where its configuration may not be read it is taken for one that keeps all. Raises StreamFailed
    where the cluster cannot be reached.
    """
    admin, _ = reach(config)
    return _compacts(admin, config, topic)


def _compacts(admin: AdminClient, config: KafkaConfig, topic: str) -> bool:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        answer = admin.describe_configs([resource])[resource].result(config.start_timeout_s)
    except (KafkaException, TimeoutError) as error:
        _log.info("stream.cleanup_policy_unknown", topic=topic, error=type(error).__name__)
        return False
    return "compact" in str(answer["cleanup.policy"].value)
