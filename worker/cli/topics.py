"""Creating the worker's topics before there is a worker, for a deployment's first step."""

from __future__ import annotations

from worker.settings import Settings


def create_topics(settings: Settings) -> None:
    """Create every topic that is missing, and print all names; existing topics are left unchanged.

    Raises SettingsError or StreamFailed, which say what to do.
    """
    from worker.policies import kafka_config, shadow_topic
    from worker.stream.kafka_reach import check_clients
    from worker.stream.kafka_topics import prepare_topics

    kafka = settings.kafka.model_copy(update={"create_topics": True})
    config = kafka_config(kafka, shadow_topic(settings))
    check_clients(config)
    config = prepare_topics(config)
    names = dict.fromkeys((*config.topics.named_inputs, *config.topics.sinks))
    print(f"{config.bootstrap_servers} has {', '.join(names)}")
