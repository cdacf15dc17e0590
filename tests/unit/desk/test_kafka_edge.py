"""Faults of the Kafka client itself."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from desk.errors import KafkaAway, Superseded
from desk.stream.kafka import KafkaCorrections
from desk.stream.port import Outgoing
from tests.support.desk_outbox_process import config_for


class LosesTheException:
    """A producer whose flush fails like the client after a fatal error in a callback."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None

    def flush(self, *_: object) -> int:
        raise SystemError("returned NULL without setting an exception")


class CommitsNeverEnd:
    """A producer whose commits time out."""

    def __init__(self) -> None:
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: 0

    def commit_transaction(self, _timeout_s: float) -> None:
        self.commits += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", retriable=True))


def test_a_commit_that_timed_out_is_not_called_again() -> None:
    """The client may end the process for that. The producer is dropped, so that the next start asks
    Kafka what was written."""
    producer = CommitsNeverEnd()
    sink = KafkaCorrections(config_for("127.0.0.1:1", "corrections", "desk.edge"))
    sink._producer = producer  # type: ignore[assignment]
    with pytest.raises(KafkaAway, match="no answer"):
        sink.publish([Outgoing(1, b"key", b"value")])
    assert producer.commits == 1
    assert sink._producer is None
    sink.close()


@pytest.mark.parametrize(("heard", "told"), [(KafkaError._FENCED, Superseded), (None, KafkaAway)])
def test_a_lost_exception_is_told_as_what_was_heard(
    heard: int | None, told: type[Exception]
) -> None:
    """Fencing is Superseded. After anything else the desk tries again."""
    sink = KafkaCorrections(config_for("127.0.0.1:1", "corrections", "desk.edge"))
    sink._producer = LosesTheException()  # type: ignore[assignment]
    if heard is not None:
        sink._heard(KafkaError(heard, "fenced", fatal=True))
    with pytest.raises(told):
        sink.publish([Outgoing(1, b"key", b"value")])
    with pytest.raises(KafkaAway, match="not been started"):
        sink.publish([Outgoing(1, b"key", b"value")])
    sink.close()
