"""From settings to librdkafka's properties, and which properties users may not set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.common.schema_registry import OutputFormat, SchemaRegistry
from worker.errors import SettingsError
from worker.stream.topics import Topics

Property = str | int | float | bool
Properties = Mapping[str, Property]
Delivery = Literal["exactly_once", "at_least_once"]


_DEFAULT_MAX_POLL_INTERVAL_MS = 300_000

# With group.protocol=consumer the broker decides these, and the client refuses them.
_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")


_BUFFERED_BYTES = 16 * 1024 * 1024
"""The size of the worker's buffer: more than a second of work, which a fetch takes to resume."""

CLIENT_ID = "filing-clerk"
"""The default ``client.id``."""


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """The Kafka configuration of a worker. The property maps contain secrets: never log them."""

    topics: Topics
    delivery: Delivery
    common: Properties
    consumer: Properties
    producer: Properties
    create_topics: bool
    topic_partitions: int
    publish_timeout_s: float
    start_timeout_s: float
    origins: Mapping[str, str] = field(default_factory=dict)
    """The setting of each property that the user set."""
    max_record_bytes: Mapping[str, int] = field(default_factory=dict)
    cluster_id: str = ""
    """The cluster's own id, empty if unknown."""
    compacted: frozenset[str] = frozenset()
    """The topics that are known to be compacted: they refuse records without a key."""
    retention_s: Mapping[str, float] = field(default_factory=dict)
    """The retention of each input topic, if it is known and limited."""
    cluster: str | None = None
    """The cluster's configured name, which becomes part of the results' ids."""
    registry: SchemaRegistry | None = None
    output_format: OutputFormat = "json"

    @property
    def transaction_timeout_s(self) -> float:
        """How long a transaction may be open before the broker aborts it."""
        return _number(self.producer, "transaction.timeout.ms", 60_000) / 1000

    @property
    def max_buffered_bytes(self) -> int:
        """How much the worker buffers beyond the client's own queue, whose content it may lose when
        it pauses a partition."""
        queue_bytes = 1024 * _number(self.consumer, "queued.max.messages.kbytes", 65536)
        return int(max(_BUFFERED_BYTES, 2 * queue_bytes))

    @property
    def bootstrap_servers(self) -> str:
        """The configured servers, for messages to operators."""
        return str(self.common["bootstrap.servers"])

    @property
    def max_poll_interval_s(self) -> float:
        """How long the group waits for a poll before it removes the member."""
        return _number(self.consumer, "max.poll.interval.ms", _DEFAULT_MAX_POLL_INTERVAL_MS) / 1000


def build_config(
    *,
    bootstrap_servers: str,
    group_id: str,
    transactional_id: str,
    topics: Topics,
    delivery: Delivery,
    security: Properties,
    client: Properties,
    consumer: Properties,
    producer: Properties,
    create_topics: bool,
    topic_partitions: int,
    publish_timeout_s: float,
    start_timeout_s: float,
    cluster: str | None = None,
) -> KafkaConfig:
    """Merge a user's properties into the worker's defaults. Raises SettingsError.

    ``client`` applies to both clients, ``consumer`` and ``producer`` to one. Properties that would
    break the worker's promises are refused.
    """
    check_promises(
        {"kafka.client": client, "kafka.consumer": consumer, "kafka.producer": producer}, delivery
    )
    common: dict[str, Property] = {
        "bootstrap.servers": bootstrap_servers,
        "client.id": CLIENT_ID,
        **security,
        **client,
    }
    read_from = _consumer(common, group_id, {**client, **consumer}, consumer)
    _check_reset(topics, read_from)
    return KafkaConfig(
        topics=topics,
        delivery=delivery,
        common=common,
        consumer=read_from,
        producer=_producer(common, transactional_id, delivery, producer),
        create_topics=create_topics,
        topic_partitions=topic_partitions,
        publish_timeout_s=publish_timeout_s,
        start_timeout_s=start_timeout_s,
        origins=_origins(security, client=client, consumer=consumer, producer=producer),
        cluster=cluster,
    )


def _check_reset(topics: Topics, consumer: Properties) -> None:
    # A partition of the retry topic has no committed offset until its first record is published.
    reset = str(consumer["auto.offset.reset"]).lower()
    if topics.retry is not None and reset not in {"earliest", "smallest", "beginning"}:
        raise SettingsError(
            f"auto.offset.reset is {reset} and kafka.retry_topic is set: messages that wait there "
            "when the group first starts would be skipped. Use earliest, or leave "
            "kafka.retry_topic empty"
        )


def uses_brokers_protocol(consumer: Properties) -> bool:
    """Return whether the broker assigns the partitions (KIP-848). The client ignores the case."""
    return str(consumer.get("group.protocol", "")).lower() == "consumer"


def compresses(producer: Properties) -> bool:
    """Return whether the producer compresses. Of the property's two names, the last one counts."""
    given = [
        producer[name] for name in producer if name in ("compression.type", "compression.codec")
    ]
    return bool(given) and str(given[-1]).lower() != "none"


def _origins(security: Properties, **places: Properties) -> dict[str, str]:
    origins = {name: f"kafka.{name.replace('.', '_')}" for name in security}
    if "oauth_cb" in origins:
        origins["oauth_cb"] = "kafka.sasl_token_callback"
    for place, given in places.items():
        origins |= {name: f"kafka.{place}.{name}" for name in given}
    return origins


def _consumer(
    common: Properties, group_id: str, given: Properties, own: Properties
) -> dict[str, Property]:
    defaults: dict[str, Property] = {
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        # Partitions that a rebalance does not move are not revoked, so their records in the engine
        # are not labelled a second time.
        "partition.assignment.strategy": "cooperative-sticky",
        # For the lag; 0 would turn the statistics off.
        "statistics.interval.ms": 5000,
        # The worker has its own buffer (worker.stream.fetch_buffer). The client fetches again when
        # its queue is empty, but not before the worker has had time to pause full partitions: it
        # would discard what is on its way.
        "queued.max.messages.kbytes": 1,
        "fetch.queue.backoff.ms": 10,
        # At most for one partition, if its batches are no larger.
        "fetch.message.max.bytes": 65536,
    }
    if uses_brokers_protocol(given):
        clash = [name for name in _CLASSIC_ONLY if name in given]
        if clash:
            raise SettingsError(
                f"kafka.consumer: {clash} cannot be set with group.protocol=consumer: "
                "the broker's group configuration decides them"
            )
        if str(given.get("statistics.interval.ms", "1")) == "0":
            raise SettingsError(
                "kafka.consumer: 'statistics.interval.ms' must be above 0 with "
                "group.protocol=consumer: only the statistics show a worker without a partition "
                "that it has joined"
            )
        del defaults["partition.assignment.strategy"]
    return {**defaults, **common, **own}


def _producer(
    common: Properties, transactional_id: str, delivery: Delivery, own: Properties
) -> dict[str, Property]:
    defaults: dict[str, Property] = {
        "enable.idempotence": True,
        "acks": "all",
        # What every client reads: KafkaJS, for one, knows no other codec by itself. zstd makes a
        # result a tenth smaller in a fourth of the CPU time (docs/figures.md).
        "compression.type": "gzip",
        # Java's partitioner, so that a key's results are in the partition where Java clients look.
        # With librdkafka's default hash, joins by key would silently find nothing.
        "partitioner": "murmur2_random",
        "linger.ms": 2,
        # The broker refuses a transaction's first request while it still closes the previous
        # transaction. The default of 100 ms would be added to every transaction: 110 ms for a
        # record alone where it takes 13 (confluent-kafka-python issue 967).
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 50,
    }
    if delivery == "exactly_once":
        defaults["transactional.id"] = transactional_id
        # A dead worker's open transaction blocks its partitions' offsets for this long.
        defaults["transaction.timeout.ms"] = 15_000
    return {**defaults, **common, **own}


def _number(properties: Properties, name: str, default: float) -> float:
    value = properties.get(name, default)
    try:
        return float(value)
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {value!r}") from None


def check_bounds(config: KafkaConfig, max_iteration_s: float) -> None:
    """Refuse settings under which a slow iteration could cost the worker its partitions.

    ``max_iteration_s`` is the longest time between two polls. Raises SettingsError.
    """
    if max_iteration_s >= config.max_poll_interval_s:
        raise SettingsError(
            f"the loop may not poll Kafka for {max_iteration_s:.0f} s (publishing, backoff, and a "
            f"revoke), but max.poll.interval.ms allows {config.max_poll_interval_s:.0f} s: lower "
            "kafka.publish_timeout_s or raise max.poll.interval.ms in [kafka.consumer]"
        )
    timeout_ms = 1000 * config.transaction_timeout_s
    if config.delivery == "exactly_once" and config.publish_timeout_s * 1000 > timeout_ms:
        raise SettingsError(
            f"kafka.publish_timeout_s is {config.publish_timeout_s:g} s, but the broker aborts a "
            f"transaction after transaction.timeout.ms={timeout_ms:.0f}: lower the first or raise "
            "the second"
        )


_OFFSETS = "offsets are committed with the results"
_SERVERS = "set kafka.bootstrap_servers"
_OWN = "the worker sets it"

# Set by other settings, or not configurable.
_RESERVED = {
    "enable.auto.commit": _OFFSETS,
    "auto.commit.enable": _OFFSETS,
    "enable.auto.offset.store": _OFFSETS,
    "offset.store.method": _OFFSETS,
    "enable.partition.eof": "the worker does not stop at the end of a partition",
    "transactional.id": "set kafka.instance_id, which is a part of it",
    "enable.idempotence": "set kafka.delivery",
    "bootstrap.servers": _SERVERS,
    "metadata.broker.list": _SERVERS,
    "group.id": "set kafka.group_id",
    "on_delivery": _OWN,
    "error_cb": _OWN,
    "logger": _OWN,
    "stats_cb": _OWN,
}


@dataclass(frozen=True, slots=True)
class _Bound:
    """The values of a property that keep a promise, and why others break it."""

    allows: Callable[[Property], bool]
    must_be: str
    why: str


def _at_most(limit: int) -> Callable[[Property], bool]:
    return lambda value: (number := _as_number(value)) is None or number <= limit


def _at_least(limit: int) -> Callable[[Property], bool]:
    return lambda value: (number := _as_number(value)) is None or number >= limit


def _as_number(value: Property) -> float | None:
    # None: the client refuses a value that is not a number.
    try:
        return float(value)
    except ValueError:
        return None


_ACKS = _Bound(
    lambda value: str(value).lower() in {"all", "-1"},
    "all",
    "a result that fewer replicas have acknowledged can be lost after its input is committed",
)
_IN_FLIGHT = _Bound(
    _at_most(5), "at most 5", "with more in flight, a retry may double or reorder results"
)
_RETRIES = _Bound(_at_least(1), "at least 1", "without retries, one lost answer breaks idempotence")
_COMMITTED = _Bound(
    lambda value: str(value).lower() == "read_committed",
    "read_committed with kafka.delivery=exactly_once",
    "records of aborted transactions would get results",
)
_RESET = _Bound(
    lambda value: str(value).lower() not in {"latest", "largest", "end"},
    "earliest or error",
    "a new partition, or one without a committed offset, would start at its end and skip earlier "
    "messages. To start a group at the end, set its offsets before its first start "
    "(kafka-consumer-groups.sh --reset-offsets --to-latest)",
)
_BOUNDS: Mapping[str, _Bound] = {
    "auto.offset.reset": _RESET,
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "max.in.flight": _IN_FLIGHT,
    "max.in.flight.requests.per.connection": _IN_FLIGHT,
    "retries": _RETRIES,
    "message.send.max.retries": _RETRIES,
}


def check_promises(places: Mapping[str, Properties], delivery: Delivery) -> None:
    """Refuse properties that would break a promise. ``places`` maps a setting to its properties.

    The client refuses some of these combinations and silently accepts others. Raises SettingsError
    with every wrong property and its setting.
    """
    problems = [
        f"{place}: {problem}"
        for place, given in places.items()
        for problem in _broken(given, delivery)
    ]
    if problems:
        raise SettingsError(*problems)


def _broken(given: Properties, delivery: Delivery) -> Iterator[str]:
    bounds = dict(_BOUNDS)
    if delivery == "exactly_once":
        bounds["isolation.level"] = _COMMITTED
    for name, value in given.items():
        if name in _RESERVED:
            yield f"{name!r} cannot be set: {_RESERVED[name]}"
            continue
        bound = bounds.get(name)
        if bound is not None and not bound.allows(value):
            yield f"{name!r} must be {bound.must_be}, not {value!r}: {bound.why}"
