"""Policies as the settings' defaults make them, but for what a test sets itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worker.core.assignment import Bounds
from worker.core.publisher import LoopPolicy
from worker.lifecycle.canary_judge import JudgePolicy
from worker.policies import loop_policy
from worker.settings import KafkaSettings, LoopSettings
from worker.stream.kafka_config import KafkaConfig, build_config
from worker.stream.topics import Topics


def make_bounds(**changes: Any) -> Bounds:
    """Bounds; ``changes`` replace fields."""
    return replace(loop_policy(LoopSettings()).bounds, **changes)


def make_loop_policy(**changes: Any) -> LoopPolicy:
    """A loop's policy; ``changes`` replace fields."""
    return replace(loop_policy(LoopSettings()), **changes)


def make_judge_policy(**changes: Any) -> JudgePolicy:
    """When a canary is stopped; ``changes`` replace fields."""
    return replace(JudgePolicy(), **changes)


def make_kafka_config(**changes: Any) -> KafkaConfig:
    """What the Kafka edge needs, for a cluster that is not there; ``changes`` are arguments."""
    settings = KafkaSettings()
    given: dict[str, Any] = {
        "bootstrap_servers": "nowhere",
        "group_id": "g",
        "transactional_id": "t",
        "topics": Topics(("in",), "out", None, "dead"),
        "delivery": settings.delivery,
        "security": {},
        "client": {},
        "consumer": {},
        "producer": {},
        "create_topics": settings.create_topics,
        "topic_partitions": settings.topic_partitions,
        "publish_timeout_s": settings.publish_timeout_s,
        "start_timeout_s": settings.start_timeout_s,
    }
    return build_config(**{**given, **changes})
