"""From plain settings to the properties librdkafka takes. Pure: no client is touched here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.errors import SettingsError
from worker.stream.topics import Topics

Property = str | int | float | bool
Properties = Mapping[str, Property]
Delivery = Literal["exactly_once", "at_least_once"]


_DEFAULT_MAX_POLL_INTERVAL_MS = 300_000

# With the broker-side protocol these are the broker's to set; the client refuses them.
_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")


CLIENT_ID = "filing-clerk"
"""The client's name towards the brokers, unless kafka.client names another."""


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Everything the Kafka edge needs. Secrets are in the property maps: never log those."""

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
    """For each property that was set, the setting it came from."""
    max_record_bytes: Mapping[str, int] = field(default_factory=dict)
    retention_s: Mapping[str, float] = field(default_factory=dict)
    """How long each input topic keeps its records, where that is known and not for ever."""
    cluster: str | None = None
    """The cluster's name, which the ids of results then begin with."""

    @property
    def transaction_timeout_s(self) -> float:
        """For how long the broker lets a transaction be open."""
        return _number(self.producer, "transaction.timeout.ms", 60_000) / 1000

    @property
    def bootstrap_servers(self) -> str:
        """Where the cluster was looked for, for messages to people."""
        return str(self.common["bootstrap.servers"])

    @property
    def max_poll_interval_s(self) -> float:
        """How long the group waits for a poll before it takes the partitions away."""
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
    """Lay a user's properties over the worker's defaults. Raises SettingsError.

    ``client`` goes to both sides, ``consumer`` and ``producer`` to one; what the worker's
    promises rest on cannot be set there.
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
    """A partition of the retry topic has no committed offset until its first message is done."""
    reset = str(consumer["auto.offset.reset"]).lower()
    if topics.retry is not None and reset not in {"earliest", "smallest", "beginning"}:
        raise SettingsError(
            f"auto.offset.reset is {reset} and kafka.retry_topic is set: a message that waits when "
            "a worker starts for the first time would be passed over; leave it at earliest, or "
            "kafka.retry_topic empty"
        )


def uses_brokers_protocol(consumer: Properties) -> bool:
    """Return whether the broker assigns the partitions (KIP-848); the client ignores the case."""
    return str(consumer.get("group.protocol", "")).lower() == "consumer"


def compresses(producer: Properties) -> bool:
    """Return whether the producer compresses; of the property's two names the last given wins."""
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
        "partition.assignment.strategy": "cooperative-sticky",
        # The lag is read from them; 0 is never.
        "statistics.interval.ms": 5000,
        # Prefetch is thrown away by each pause and kept in memory: a few seconds of work is enough.
        "queued.max.messages.kbytes": 16384,
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
                "group.protocol=consumer: it tells a worker without a partition that it has joined"
            )
        del defaults["partition.assignment.strategy"]
    return {**defaults, **common, **own}


def _producer(
    common: Properties, transactional_id: str, delivery: Delivery, own: Properties
) -> dict[str, Property]:
    defaults: dict[str, Property] = {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "zstd",
        # Java's, so that a key's results lie in the partition that Java clients look in; the
        # client's own default is another hash, and joins by key would quietly find nothing.
        "partitioner": "murmur2_random",
        "linger.ms": 2,
        # The first request of a transaction is refused while the last one is being closed, and
        # tried again after this time: the client's default of 100 ms would be every transaction's.
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 50,
    }
    if delivery == "exactly_once":
        defaults["transactional.id"] = transactional_id
        # A dead worker's open transaction holds its partitions' offsets up for this long.
        defaults["transaction.timeout.ms"] = 15_000
    return {**defaults, **common, **own}


def _number(properties: Properties, name: str, default: float) -> float:
    value = properties.get(name, default)
    try:
        return float(value)
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {value!r}") from None


def check_bounds(config: KafkaConfig, max_iteration_s: float) -> None:
    """Refuse settings under which a slow iteration would cost the worker its partitions.

    ``max_iteration_s`` is the longest the loop can stay away from polling. Raises SettingsError.
    """
    if max_iteration_s >= config.max_poll_interval_s:
        raise SettingsError(
            f"the loop may stay away from Kafka for {max_iteration_s:.0f} s (publishing, backoff "
            f"and a revoke) but max.poll.interval.ms gives it "
            f"{config.max_poll_interval_s:.0f} s: lower kafka.publish_timeout_s or raise "
            "max.poll.interval.ms in [kafka.consumer]"
        )
    timeout_ms = 1000 * config.transaction_timeout_s
    if config.delivery == "exactly_once" and config.publish_timeout_s * 1000 > timeout_ms:
        raise SettingsError(
            f"kafka.publish_timeout_s is {config.publish_timeout_s:g} s and the broker aborts a "
            f"transaction after transaction.timeout.ms={timeout_ms:.0f}: keep the first below"
        )


_OFFSETS = "offsets are committed with the results"
_SERVERS = "set kafka.bootstrap_servers"
_OWN = "it is the worker's own"

# Set by other settings, or not configurable.
_RESERVED = {
    "enable.auto.commit": _OFFSETS,
    "auto.commit.enable": _OFFSETS,
    "enable.auto.offset.store": _OFFSETS,
    "offset.store.method": _OFFSETS,
    "enable.partition.eof": "the worker does not end with the log",
    "transactional.id": "set kafka.instance_id, which it is made of",
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
    """The values of a property under which a promise holds, and why no others do."""

    allows: Callable[[Property], bool]
    must_be: str
    why: str


def _at_most(limit: int) -> Callable[[Property], bool]:
    return lambda value: (number := _as_number(value)) is None or number <= limit


def _at_least(limit: int) -> Callable[[Property], bool]:
    return lambda value: (number := _as_number(value)) is None or number >= limit


def _as_number(value: Property) -> float | None:
    """Return None for what is not a number: the client refuses it."""
    try:
        return float(value)
    except ValueError:
        return None


_ACKS = _Bound(
    lambda value: str(value).lower() in {"all", "-1"},
    "all",
    "a result acknowledged by fewer replicas is lost with them, after its input is done",
)
_IN_FLIGHT = _Bound(
    _at_most(5), "at most 5", "with more in flight a retry may double results or swap their order"
)
_RETRIES = _Bound(
    _at_least(1), "at least 1", "without retries a single lost answer spoils the idempotence"
)
_COMMITTED = _Bound(
    lambda value: str(value).lower() == "read_committed",
    "read_committed with kafka.delivery=exactly_once",
    "records of transactions that are aborted later would get results all the same",
)
_RESET = _Bound(
    lambda value: str(value).lower() not in {"latest", "largest", "end"},
    "earliest or error",
    "a partition that is new, or whose offset is not known yet, would begin at its end and lose "
    "what lies before; to begin a group at the end, set its offsets before its first start "
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
    """Refuse properties that would break a promise. ``places`` are properties by their setting.

    The client refuses some of these combinations by itself and takes others without a word. Raises
    SettingsError with every property that has to go, and its setting.
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
