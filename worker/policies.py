"""Convert the settings to the policies that each part of the worker takes."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import replace

import structlog

from worker.common.cache import cache_folder
from worker.common.kafka import login_properties
from worker.common.schema_registry import SchemaRegistry
from worker.core.assignment import Bounds
from worker.core.crash_isolation import IsolationPolicy
from worker.core.pipeline import ADMISSION_S, SLOWEST_MESSAGE_S
from worker.core.publisher import MAX_BACKOFF_S, LoopPolicy
from worker.core.urgency import Urgency
from worker.engine.pacing import AdmissionPolicy
from worker.errors import SettingsError
from worker.records.encode import RetryPolicy
from worker.settings import KafkaSettings, Settings
from worker.stream.kafka_config import KafkaConfig, Property, build_config
from worker.stream.topics import Topics
from worker.trial_witness import FileWitness


def loop_policy(settings: Settings) -> LoopPolicy:
    """Return the loop's policy."""
    urgency = Urgency(worker_topics(settings.kafka).is_urgent, settings.kafka.rest_share)
    return LoopPolicy(Bounds(settings.loop.max_in_flight), settings.loop.drain_s, urgency)


MAX_IN_ENGINE = 256
"""The most records in the engine: more would only queue there, with their deadlines running."""


def admission_policy(settings: Settings) -> AdmissionPolicy:
    """Return the engine's limits: ``MAX_IN_ENGINE`` records, or the number that the engine computes
    at once (``max_num_seqs``) if that is higher."""
    at_once = settings.model.engine_args.get("max_num_seqs")
    most = max(MAX_IN_ENGINE, at_once) if isinstance(at_once, int) else MAX_IN_ENGINE
    return AdmissionPolicy(max_in_engine=most, deadline_s=settings.loop.deadline_s)


def retry_policy(settings: Settings) -> RetryPolicy | None:
    """Return the policy for later attempts; None without a retry topic."""
    topic = settings.kafka.retry_topic
    if not topic:
        return None
    return RetryPolicy(topic, settings.loop.retry_delay_s, settings.loop.retry_max_attempts)


def isolation_policy(settings: Settings) -> IsolationPolicy | None:
    """Return the policy for messages that crash the engine; None if it is disabled."""
    if not settings.loop.crash_isolation:
        return None
    return IsolationPolicy(
        # Not the process id: in a container it is the same after each restart, and the note of the
        # process that crashed would be taken for our own.
        process=uuid.uuid4().hex[:8],
        # No more records than this can have been in the engine when it crashed.
        reach=settings.loop.max_in_flight,
        witness=FileWitness(cache_folder() / "trials", settings.kafka.group_id),
    )


def max_iteration_s(config: KafkaConfig, policy: LoopPolicy) -> float:
    """Return the longest time between two polls.

    It is the sum of the worst cases: preparing messages twice (after the fetch and after answers),
    resolving an unknown commit and publishing a batch, and then either the longest backoff or a
    revoke, which ends with one more publish.
    """
    prepare = 2 * (ADMISSION_S + SLOWEST_MESSAGE_S)
    publish = 3 * config.publish_timeout_s
    revoke = policy.revoke_drain_s + publish + config.publish_timeout_s
    return prepare + publish + max(MAX_BACKOFF_S, revoke)


def worker_topics(kafka: KafkaSettings, shadow_topic: str | None = None) -> Topics:
    """Return the topics in the settings, unchecked."""
    return Topics(
        kafka.input_topics,
        kafka.output_topic,
        kafka.review_topic or None,
        kafka.dead_letter_topic,
        shadow_topic,
        kafka.retry_topic or None,
        kafka.urgent_topics,
    )


def kafka_config(kafka: KafkaSettings, shadow_topic: str | None = None) -> KafkaConfig:
    """Return the configuration of the Kafka clients. Raises SettingsError."""
    topics = worker_topics(kafka, shadow_topic)
    topics.check()
    config = build_config(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group_id,
        transactional_id=transactional_id(kafka),
        topics=topics,
        delivery=kafka.delivery,
        security=kafka_security(kafka),
        client=kafka.client,
        consumer=kafka.consumer,
        producer=kafka.producer,
        create_topics=kafka.create_topics,
        topic_partitions=kafka.topic_partitions,
        publish_timeout_s=kafka.publish_timeout_s,
        start_timeout_s=kafka.start_timeout_s,
        cluster=kafka.source_cluster or None,
    )
    if kafka.registry:
        registry = SchemaRegistry(kafka.registry, SettingsError)
        return replace(config, registry=registry, output_format=kafka.output_format)
    if kafka.output_format != "json":
        raise SettingsError(f"kafka.output_format is {kafka.output_format}: set kafka.registry")
    return config


def shadow_topic(settings: Settings) -> str | None:
    """Return the topic of a shadow's labels; None without a shadow."""
    return settings.adapters.shadow_topic if settings.adapters.shadow else None


def transactional_id(kafka: KafkaSettings) -> str:
    """Return the producer's transactional.id: stable if instance_id is set, otherwise unique.

    With a stable id a restarted worker aborts its predecessor's open transaction at once. But two
    processes with the same id fence each other, so the host's name alone is not used.
    """
    if kafka.instance_id:
        return f"{kafka.group_id}.{kafka.instance_id}"
    return f"{kafka.group_id}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def kafka_security(kafka: KafkaSettings) -> dict[str, Property]:
    """Return librdkafka's properties for logging in. Raises SettingsError."""
    return login_properties(kafka, _report_no_token, SettingsError)


def _report_no_token(why: str) -> None:
    structlog.get_logger("worker.stream").error("stream.no_token", error=why)
