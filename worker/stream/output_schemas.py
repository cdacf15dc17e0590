"""The schemas of the results' values: registered by ``clerk-worker topics``, used by the worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from worker.common.schema_registry import RegistryAway, SchemaNotFound
from worker.errors import SettingsError, StreamFailed
from worker.records.schemas import avro_text, schema_text
from worker.stream.kafka_config import KafkaConfig


def register_schemas(config: KafkaConfig) -> Mapping[str, int]:
    """Register the schema of each topic with results; return the ids by subject.

    Raises SettingsError, before anything is registered, if one is incompatible with what is there;
    StreamFailed.
    """
    if config.registry is None or config.output_format == "json":
        return {}
    try:
        return config.registry.register(_schemas(config), config.output_format)
    except ValueError as error:
        raise SettingsError(
            f"the results' schema is incompatible with the versions of {error}: nothing was "
            "registered. Write to other topics, or change the subject's compatibility"
        ) from error
    except RegistryAway as error:
        raise StreamFailed(str(error)) from error


def make_serializers(config: KafkaConfig) -> dict[str, Callable[[bytes], bytes]]:
    """Return the function that writes a result's JSON as its topic's schema has it, by topic.

    Raises SettingsError if a schema is not registered, StreamFailed if the registry is away.
    """
    registry, kind = config.registry, config.output_format
    if registry is None or kind == "json":
        return {}
    found: dict[str, Callable[[bytes], bytes]] = {}
    try:
        for topic, schema in _schemas(config).items():
            serialize = registry.serializer(topic, kind, schema)
            found[topic] = partial(_from_json, serialize) if kind == "avro" else serialize
    except SchemaNotFound as error:
        raise SettingsError(
            f"the registry has not this version's schema under {error}: register it with "
            "clerk-worker topics"
        ) from error
    except RegistryAway as error:
        raise StreamFailed(str(error)) from error
    return found


def _from_json(serialize: Callable[[Any], bytes], value: bytes) -> bytes:
    return serialize(json.loads(value))


def _schemas(config: KafkaConfig) -> dict[str, str]:
    text = avro_text("output") if config.output_format == "avro" else schema_text("output")
    topics = config.topics
    return {topic: text for topic in (topics.output, topics.review, topics.shadow) if topic}
