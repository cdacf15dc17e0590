"""Making the worker's topics before there is a worker, for a deployment's first step."""

from __future__ import annotations

from worker.settings import Settings


def make_topics(settings: Settings) -> None:
    """Make every topic that is missing and name them all; those that are there stay as they are.

    Raises SettingsError or StreamFailed with what to do.
    """
    from worker.policies import kafka_config, shadow_topic
    from worker.stream.kafka_topics import prepare_topics

    kafka = settings.kafka.model_copy(update={"create_topics": True})
    config = prepare_topics(kafka_config(kafka, shadow_topic(settings)))
    names = dict.fromkeys((config.topics.input, *config.topics.sinks))
    print(f"{config.bootstrap_servers} has {', '.join(names)}")
