"""The edge to Kafka, where the client itself is at fault."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from desk.errors import KafkaAway, Superseded
from desk.stream.kafka import KafkaCorrections
from desk.stream.port import Outgoing
from tests.support.desk_outbox_process import config_for


class LosesTheException:
    """A producer whose flush fails as the client does when a callback has met something fatal."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None

    def flush(self, *_: object) -> int:
        raise SystemError("returned NULL without setting an exception")


@pytest.mark.parametrize(("heard", "told"), [(KafkaError._FENCED, Superseded), (None, KafkaAway)])
def test_a_lost_exception_is_told_as_what_was_heard(
    heard: int | None, told: type[Exception]
) -> None:
    """A fence is one; anything else is tried again, from what Kafka says was written."""
    sink = KafkaCorrections(config_for("127.0.0.1:1", "corrections", "desk.edge"))
    sink._producer = LosesTheException()  # type: ignore[assignment]
    if heard is not None:
        sink._heard(KafkaError(heard, "fenced", fatal=True))
    with pytest.raises(told):
        sink.publish([Outgoing(1, b"key", b"value")])
    with pytest.raises(KafkaAway, match="not been started"):
        sink.publish([Outgoing(1, b"key", b"value")])
    sink.close()
