"""Whether the worker's user may do what a worker does, found out before the model is loaded.

Brokers say with a description what the asker may do to it (KIP-430), so that nothing is tried out
on topics and group. A broker that does not say, or has no rights at all, is taken at its word when
the worker reads and writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

from worker.errors import StreamFailed
from worker.stream.bounded import BoundedCaller
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_types import client_log
from worker.stream.topics import Topics

_log = structlog.get_logger("worker.stream")

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
    """Refuse to start without a right that will be needed. Raises StreamFailed, which names all
    that are missing, with the setting that each thing is named in."""
    missing = [*_topic_rights(admin, config.topics), *_group_right(admin, config)]
    if not missing and config.delivery == "exactly_once":
        missing += _transaction_right(config)
    if missing:
        raise StreamFailed(
            f"{_user(config)} may not {', nor '.join(missing)} at {config.bootstrap_servers}: have "
            "these rights (ACLs) given to it, or name others in the settings; what does not exist "
            "may look forbidden"
        )


def named_in(topics: Topics, topic: str) -> str:
    """Return the setting in which a topic is named."""
    if topic in topics.inputs:
        return "kafka.input_topics"
    names = {
        topics.output: "kafka.output_topic",
        topics.review: "kafka.review_topic",
        topics.dead_letter: "kafka.dead_letter_topic",
        topics.shadow: "adapters.shadow_topic",
        topics.retry: "kafka.retry_topic",
    }
    return names[topic]


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
                yield f"{verb} the topic {topic!r} ({named_in(topics, topic)})"


def _group_right(admin: AdminClient, config: KafkaConfig) -> Iterator[str]:
    group = str(config.consumer["group.id"])
    answers = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=_ASK_S
    )
    if _is_denied(answers[group], AclOperation.READ):
        yield f"read as the consumer group {group!r} (kafka.group_id)"


def _transaction_right(config: KafkaConfig) -> Iterator[str]:
    """Begin to use the transactional.id, which is the only way to ask, and this process's own."""
    name = config.producer["transactional.id"]
    quiet = {**config.producer, "log_level": 0}
    producer = Producer(quiet, error_cb=lambda _: None, logger=client_log)
    calls = BoundedCaller("transaction-right")
    try:
        calls.call(lambda: producer.init_transactions(_TRY_S), 2 * _TRY_S)
    except TimeoutError:
        return  # the call hangs: it is left behind, and made again when the worker starts
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
    # What may be described may at least be described: an empty answer is none.
    return bool(allowed) and operation not in (allowed or ())


def _user(config: KafkaConfig) -> str:
    user = config.common.get("sasl.username")
    return f"the user {user!r}" if user else "the worker's user"
