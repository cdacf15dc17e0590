"""librdkafka's properties, built from the settings. No client is used here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from desk.errors import SettingsError
from worker.common.schema_registry import SchemaRegistry

Property = str | int | float | bool
Properties = Mapping[str, Property]

ANSWER_S = 30.0
"""Time limit of a request about topics."""

PUBLISH_S = 10.0
"""Time limit of a transaction. The broker aborts it after 15 s."""

# Exactly-once needs these.
_FIXED = {
    "group.id": "it is kafka.name and the database's own name",
    "transactional.id": "it is kafka.name and the database's own name",
    "enable.auto.commit": "offsets are kept in the database",
    "enable.auto.offset.store": "offsets are kept in the database",
    "isolation.level": "uncommitted records are not results",
    "enable.idempotence": "corrections are written exactly once",
    "acks": "corrections are written exactly once",
}

_READS: Properties = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    # librdkafka's default is 64 MB for each consumer.
    "queued.max.messages.kbytes": 16384,
}

_WRITES: Properties = {
    "compression.type": "gzip",  # every client reads it
    # Java's, so that a correction lies in the partition of its key for every client.
    "partitioner": "murmur2_random",
    "linger.ms": 2,
    # The first request of a transaction is refused while the previous one is being closed. The
    # client tries again after this time; the default of 100 ms would be most of the transaction.
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 50,
    "transaction.timeout.ms": 15_000,
}
_EXACTLY_ONCE: Properties = {"enable.idempotence": True, "acks": "all"}


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Everything the Kafka edge needs. Secrets are in the property maps: never log those.

    ``name`` is this desk's: the consumer group and the transactional.id.
    """

    name: str
    corrections_topic: str
    consumer: Properties
    producer: Properties
    create_partitions: int
    registry: SchemaRegistry | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The brokers' addresses, for error messages."""
        return str(self.consumer["bootstrap.servers"])


def build_config(
    *,
    bootstrap_servers: str,
    name: str,
    corrections_topic: str,
    security: Properties,
    client: Properties,
    consumer: Properties,
    producer: Properties,
    create_partitions: int = 0,
    registry: SchemaRegistry | None = None,
) -> KafkaConfig:
    """Merge the operator's properties into the desk's. Raises SettingsError for one that is fixed.

    With ``create_partitions`` above 0, a missing corrections topic is created with so many.
    """
    for place, given in (("client", client), ("consumer", consumer), ("producer", producer)):
        for key in given:
            if key in _FIXED:
                raise SettingsError(f"kafka.{place}: {key} cannot be set: {_FIXED[key]}")
    common = {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "clerk-desk",
        **security,
        **client,
    }
    return KafkaConfig(
        name=name,
        corrections_topic=corrections_topic,
        consumer={**common, **_READS, "group.id": name, **consumer},
        # The last ones win: no property of the operator may undo exactly-once.
        producer={**_WRITES, **common, **producer, **_EXACTLY_ONCE, "transactional.id": name},
        create_partitions=create_partitions,
        registry=registry,
    )
