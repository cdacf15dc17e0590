"""Making the worker's topics before there is a worker, for a deployment's first step."""

from __future__ import annotations

from worker.settings import KafkaSettings


def make_topics(kafka: KafkaSettings) -> None:
    """Make every topic that is missing and name them all; those that are there stay as they are.

    Raises SettingsError or StreamFailed with what to do.
    """
    from worker.app import kafka_config
    from worker.stream.kafka_topics import prepare_topics

    config = prepare_topics(kafka_config(kafka.model_copy(update={"create_topics": True})))
    names = dict.fromkeys((config.topics.input, *config.topics.sinks))
    print(f"{config.bootstrap_servers} has {', '.join(names)}")
