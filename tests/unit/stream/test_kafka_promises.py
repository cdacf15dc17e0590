"""Properties under which the worker's promises would silently not hold."""

from typing import Any

import pytest

from tests.support.policies import make_kafka_config
from worker.errors import SettingsError


@pytest.mark.parametrize("place", ["client", "consumer"])
@pytest.mark.parametrize("value", ["read_uncommitted", "READ_UNCOMMITTED"])
def test_exactly_once_does_not_read_what_may_be_aborted(place: str, value: str) -> None:
    """Results of records that never were could not be taken back."""
    with pytest.raises(
        SettingsError, match=rf"kafka\.{place}: 'isolation.level' must be read_committed.*aborted"
    ):
        make_kafka_config(**{place: {"isolation.level": value}})
    for level in ("read_committed", "READ_COMMITTED"):
        assert make_kafka_config(**{place: {"isolation.level": level}})


def test_at_least_once_may_read_what_may_be_aborted() -> None:
    """It promises that nothing is lost, which still holds."""
    made = make_kafka_config(
        delivery="at_least_once", consumer={"isolation.level": "read_uncommitted"}
    )
    assert made.consumer["isolation.level"] == "read_uncommitted"


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("acks", [0, 1, "1", "0"], ["all", -1, "-1", "ALL"]),
        ("request.required.acks", [1], ["all"]),
        ("max.in.flight", [6, "7", 1_000_000], [5, "1"]),
        ("max.in.flight.requests.per.connection", [6], [5]),
        ("retries", [0, "0"], [1, 2147483647]),
        ("message.send.max.retries", [0], [3]),
    ],
)
@pytest.mark.parametrize("place", ["client", "producer"])
def test_a_producer_that_may_lose_double_or_swap_records_is_refused(
    place: str, name: str, bad: list[Any], good: list[Any], delivery: str
) -> None:
    """Whichever delivery: at least once is not at most once."""
    for value in bad:
        with pytest.raises(SettingsError, match=rf"kafka\.{place}: '{name}' must be "):
            make_kafka_config(delivery=delivery, **{place: {name: value}})
    for value in good:
        assert make_kafka_config(delivery=delivery, **{place: {name: value}})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("metadata.broker.list", "set kafka.bootstrap_servers"),
        ("auto.commit.enable", "offsets are committed with the results"),
        ("offset.store.method", "offsets are committed with the results"),
    ],
)
def test_the_old_names_of_what_cannot_be_set_cannot_be_set_either(name: str, hint: str) -> None:
    """The client knows some properties by two names."""
    with pytest.raises(SettingsError, match=rf"kafka\.client: '{name}' cannot be set: {hint}"):
        make_kafka_config(client={name: "x"})


def test_without_statistics_a_spare_of_the_brokers_protocol_would_never_be_ready() -> None:
    """They are all that tells it that it is in its group."""
    with pytest.raises(SettingsError, match=r"statistics\.interval\.ms' must be above 0"):
        make_kafka_config(consumer={"group.protocol": "Consumer", "statistics.interval.ms": 0})
    assert make_kafka_config(consumer={"statistics.interval.ms": 0})


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("place", ["client", "consumer"])
def test_no_partition_begins_at_its_end(place: str, delivery: str) -> None:
    """One that is added later would lose what came before somebody had it."""
    for value in ("latest", "LARGEST", "end"):
        with pytest.raises(
            SettingsError, match=rf"kafka\.{place}: 'auto.offset.reset' must be .*to-"
        ):
            make_kafka_config(delivery=delivery, **{place: {"auto.offset.reset": value}})
    for value in ("earliest", "smallest", "beginning", "error"):
        assert make_kafka_config(delivery=delivery, **{place: {"auto.offset.reset": value}})
