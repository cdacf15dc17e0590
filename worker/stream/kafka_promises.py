"""Which librdkafka properties are not an operator's to set: the worker's promises rest on them.

The client refuses some of these combinations by itself and takes others without a word; here each
is refused with the promise that it would break. Pure: no client is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from worker.errors import SettingsError

Property = str | int | float | bool
Properties = Mapping[str, Property]
Delivery = Literal["exactly_once", "at_least_once"]

_OFFSETS = "offsets are committed with the results"
_SERVERS = "set kafka.bootstrap_servers"
_OWN = "it is the worker's own"

# Offered as settings of their own, or not at all.
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
    return lambda value: (number := _number(value)) is None or number <= limit


def _at_least(limit: int) -> Callable[[Property], bool]:
    return lambda value: (number := _number(value)) is None or number >= limit


def _number(value: Property) -> float | None:
    """What is no number is for the client to refuse."""
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
    "a partition that is new, or whose offset is not told at once, would begin at its end and lose "
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
    """Refuse what would break a promise. ``places`` are properties by the setting that holds them.
    Raises SettingsError with every property that has to go, and its setting."""
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
