"""Kafka settings that a worker would refuse at start: the chart refuses them first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.render import Refused, find, merge, render_minimal
from tests.chart.test_desk import DESK
from worker.errors import SettingsError
from worker.policies import kafka_config, loop_policy, max_iteration_s, shadow_topic
from worker.settings import Settings
from worker.stream.kafka_config import _RESERVED, check_bounds

NAMED = {
    "group_id": "g", "output_topic": "out", "review_topic": "review", "dead_letter_topic": "dead",
}  # fmt: skip
SHADOW = {"adapters": {"shadow": "/adapters/next", "shadow_topic": "shadow"}}


def kafka(**keys: Any) -> dict[str, Any]:
    """Settings of Kafka, with topic names that do not conflict."""
    return {"kafka": NAMED | keys}


CONFLICTS: list[tuple[dict[str, Any], str]] = [
    (kafka(output_topic="support.messages"), "config.kafka.output_topic: support.messages is also"),
    (kafka(retry_topic="support.messages"), "config.kafka.retry_topic: support.messages is also"),
    (kafka(urgent_topics=["u"]), 'config.kafka.urgent_topics: "u" is not in config.kafka.input'),
    (kafka(input_topics=["^rev"]), "config.kafka.review_topic: review is also an input"),
    (kafka(dead_letter_topic="review"), "and config.kafka.review_topic are both review"),
    (kafka(retry_topic="dead"), "config.kafka.retry_topic and config.kafka.dead_letter_topic"),
    (kafka(retry_topic="a topic"), 'config.kafka.retry_topic: "a topic" is not the name'),
    (merge(SHADOW, kafka(retry_topic="shadow")), "config.adapters.shadow_topic are both shadow"),
    (merge(SHADOW, kafka(input_topics=["shadow"])), "config.adapters.shadow_topic: shadow is also"),
    (kafka(consumer={"auto.offset.reset": "latest"}), "config.kafka.consumer.auto.offset.reset"),
    (kafka(client={"auto.offset.reset": "END"}), "config.kafka.client.auto.offset.reset is end"),
    (
        kafka(retry_topic="retry", consumer={"auto.offset.reset": "error"}),
        "and config.kafka.retry_topic is set",
    ),
    (kafka(consumer={"isolation.level": "read_uncommitted"}), "needs read_committed"),
    (kafka(producer={"acks": 1}), "config.kafka.producer.acks is 1"),
    (kafka(producer={"max.in.flight": 6}), "config.kafka.producer.max.in.flight is 6"),
    (kafka(producer={"retries": 0}), "config.kafka.producer.retries is 0"),
    (kafka(publish_timeout_s=16), "config.kafka.publish_timeout_s is 16"),
    (
        kafka(publish_timeout_s=20, producer={"transaction.timeout.ms": 19_999}),
        "after 19.999 s",
    ),
    (kafka(consumer={"max.poll.interval.ms": 74_100}), "polling for 74.2 s"),
    *(
        (kafka(**{place: {name: "x"}}), f"config.kafka.{place}.{name} cannot be set")
        for place, name in zip(
            ("client", "consumer", "producer") * len(_RESERVED), _RESERVED, strict=False
        )
    ),
]
FINE: list[dict[str, Any]] = [
    SHADOW,
    kafka(review_topic="out"),
    kafka(retry_topic="retry", consumer={"auto.offset.reset": "smallest"}),
    kafka(input_topics=["^support[.].*", "more"]),
    kafka(delivery="at_least_once", consumer={"isolation.level": "read_uncommitted"}),
    kafka(consumer={"auto.offset.reset": "error"}, client={"client.id": "clerk-a"}),
    kafka(publish_timeout_s=15, producer={"acks": "all", "max.in.flight": 5, "retries": 3}),
    kafka(consumer={"max.poll.interval.ms": 76_300}),
]


def refused_by_the_worker(config: dict[str, Any]) -> bool:
    """Whether the worker's own checks that need no Kafka find a problem."""
    settings = Settings.model_validate(config)
    try:
        made = kafka_config(settings.kafka, shadow_topic(settings))
        check_bounds(made, max_iteration_s(made, loop_policy(settings)))
    except SettingsError:
        return True
    return False


@pytest.mark.parametrize(("config", "reason"), CONFLICTS, ids=[reason for _, reason in CONFLICTS])
def test_the_chart_refuses_what_a_worker_would(config: dict[str, Any], reason: str) -> None:
    assert refused_by_the_worker(config)
    with pytest.raises(Refused) as caught:
        render_minimal({"config": config})
    assert reason in str(caught.value)
    assert str(caught.value).count("\n- ") == 1


@pytest.mark.parametrize("config", FINE, ids=lambda config: str(config)[:70])
def test_the_chart_accepts_what_a_worker_does(config: dict[str, Any]) -> None:
    assert not refused_by_the_worker(config)
    assert render_minimal({"config": config})


def test_all_conflicts_are_listed_at_once() -> None:
    with pytest.raises(Refused) as caught:
        render_minimal({"config": kafka(retry_topic="out", dead_letter_topic="out")})
    assert str(caught.value).count("\n- ") == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"corrections_topic": "out"}, "desk.config.kafka.corrections_topic and config.kafka.o"),
        ({"corrections_topic": "support.messages"}, "corrections_topic: support.messages is also"),
        ({"consumer": {"group.id": "x"}}, "desk.config.kafka.consumer.group.id cannot be set"),
    ],
)
def test_the_desks_topic_and_properties_too(change: dict[str, Any], reason: str) -> None:
    desk = {"desk": {"config": {"kafka": change}}, "config": kafka()}
    with pytest.raises(Refused) as caught:
        render_minimal(merge(DESK, desk))
    assert reason in str(caught.value)
    assert find(render_minimal(merge(DESK, {"config": kafka()})), "ConfigMap", "-desk")
