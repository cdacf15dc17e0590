"""Before joining: are the topics there, and how large may a record be?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any, TypeVar

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
from worker.stream.kafka_rights import check_rights, named_in
from worker.stream.topics import Topics

_COMPRESSION = 32
# A broker closes the connection on a request above its socket.request.max.bytes, 100 MiB by
# default, without naming the record: what does not shrink must stay below.
_LARGEST_TRY_BYTES = 64 * 1024 * 1024

_LOGGED = 20

_UNKNOWN = {
    "retention.ms": "stream.retention_unknown",
    "max.message.bytes": "stream.size_limit_unknown",
    "cleanup.policy": "stream.cleanup_policy_unknown",
}
"""What is logged of a topic that does not tell the property."""

_ASK_AGAIN_S = 0.05

_BROKERS_DEFAULT = -1
"""Replicas of a created topic: how many copies a cluster keeps is decided for the cluster
(``default.replication.factor``), and managed ones refuse any other number."""

_T = TypeVar("_T")

_Answers = Mapping[str, Future[Any]]
"""By topic: its properties by name, or why they are not told."""

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
    _log_matches(config, found)
    inputs = sorted(topic for topic in {*found, *missing} if config.topics.is_input(topic))
    answers = _describe(admin, {*inputs, *wanted}, config)
    if config.topics.retry is not None and _compacts(answers, config.topics.retry):
        raise StreamFailed(
            f"the topic {config.topics.retry!r} (kafka.retry_topic) is compacted: of two messages "
            "of one key that wait there the first would be dropped; set its cleanup.policy=delete"
        )
    _warn_of_compacted(answers, config.topics)
    kept_ms = _numbers(answers, inputs, "retention.ms")
    limits = _numbers(answers, config.topics.sinks, "max.message.bytes")
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
    """Say what the patterns match now; later topics are found as the client's metadata age."""
    if len(config.topics.named_inputs) == len(config.topics.inputs):
        return
    matches = sorted(topic for topic in found if config.topics.is_input(topic))
    log = _log.info if matches else _log.warning
    log("stream.topics_matched", topics=matches[:_LOGGED], count=len(matches))


def _describe(admin: AdminClient, topics: Iterable[str], config: KafkaConfig) -> _Answers:
    """Ask for the configurations of topics that exist, all in one request.

    A broker knows a topic only a moment after the controller has said that it is made. It is asked
    again meanwhile, as long as the settings wait for a cluster: without its limit, records would be
    refused that a topic takes.
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
    """Return one property of a topic's configuration, None where it is not told."""
    try:
        return read(str(answers[topic].result(timeout=0)[name].value))
    except (KafkaException, KeyError, TimeoutError, ValueError) as error:
        if quiet:
            return None
        # Reading a topic's configuration may be forbidden: it is then done without.
        reason = error.args[0].name() if isinstance(error, KafkaException) else type(error).__name__
        _log.info(_UNKNOWN[name], topic=topic, error=reason)
        return None


def _numbers(answers: _Answers, topics: Iterable[str], name: str) -> Mapping[str, int]:
    """Return one property of these topics' configurations, without topics that do not tell it."""
    read = {topic: _property(answers, topic, name, int) for topic in topics}
    return {topic: number for topic, number in read.items() if number is not None}


def _compacts(answers: _Answers, topic: str, *, quiet: bool = False) -> bool:
    return "compact" in (_property(answers, topic, "cleanup.policy", str, quiet=quiet) or "")


def _warn_of_compacted(answers: _Answers, topics: Topics) -> None:
    """Warn only: with a key on every message, and routers that want the last one, it may be meant.

    Quiet where a topic does not tell: that it does not is logged with its size limit.
    """
    for topic in topics.sinks:
        if topic != topics.retry and _compacts(answers, topic, quiet=True):
            _log.warning(
                "stream.topic_compacted",
                topic=topic,
                setting=named_in(topics, topic),
                effect="refuses the result of a message without a key; keeps one result per key",
                remedy="set the topic's cleanup.policy=delete",
            )


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
    admin, found = reach(config)
    return topic in found and _compacts(_describe(admin, (topic,), config), topic)
