"""A transaction that the broker ended by itself, on a client made of a script."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.support.policies import make_kafka_config
from worker.errors import OutcomeUnknown, PublishAborted, StreamFailed
from worker.records.types import Batch, NextOffset, Outgoing, TopicPartition
from worker.stream import kafka_consumer, kafka_producer
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_types import client_callbacks

BATCH = Batch([Outgoing("out", None, b"x", ())], [NextOffset(TopicPartition("in", 0), 1)])


class Client:
    """Stands in for Consumer and Producer: the calls named in ``fails`` raise a fatal error."""

    made: list["Client"]
    fails: dict[str, int]
    unacknowledged: int

    def __init__(self, *_: Any, **__: Any) -> None:
        self.dead: int | None = None
        self.calls: list[str] = []
        self.made.append(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> int:
            self.calls.append(name)
            self.dead = self.fails.pop(name, self.dead)
            if self.dead is not None and name not in {"purge", "close"}:
                raise KafkaException(KafkaError(self.dead, "the broker's words", fatal=True))
            return {"flush": self.unacknowledged, "memberid": 1}.get(name, 0)

        return call


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> KafkaStream:
    monkeypatch.setattr(kafka_consumer, "Consumer", Client)
    monkeypatch.setattr(kafka_producer, "Producer", Client)
    Client.made, Client.fails, Client.unacknowledged = [], {}, 0
    return KafkaStream(make_kafka_config(delivery="exactly_once"))


def test_a_commit_of_a_transaction_that_is_gone_is_in_doubt_and_a_new_producer_goes_on(
    stream: KafkaStream,
) -> None:
    """The worker does not end for it, and closing after it is no error either."""
    Client.fails = {"commit_transaction": KafkaError.INVALID_TXN_STATE}
    with pytest.raises(OutcomeUnknown, match="commit not answered"):
        stream.publish(BATCH)
    stream.publish(BATCH)
    assert len(Client.made) == 3  # a consumer and two producers
    assert Client.made[2].calls[0] == "init_transactions"
    assert Client.made[2].calls[-1] == "commit_transaction"
    stream.close()


def test_an_abort_of_a_transaction_that_is_gone_is_an_abort(stream: KafkaStream) -> None:
    """Nothing of it was published, which is what was wanted."""
    Client.fails = {"abort_transaction": KafkaError.INVALID_TXN_STATE}
    Client.unacknowledged = 1
    with pytest.raises(PublishAborted) as caught:
        stream.publish(BATCH)
    assert not isinstance(caught.value, OutcomeUnknown)
    Client.unacknowledged = 0
    stream.publish(BATCH)
    assert len(Client.made) == 3


def test_a_fence_by_the_broker_that_let_a_transaction_run_out_is_no_end(
    stream: KafkaStream,
) -> None:
    """The worker was away for longer than it may last; nobody has taken its name over."""
    short = {"transaction.timeout.ms": 0}
    stream = KafkaStream(make_kafka_config(delivery="exactly_once", producer=short))
    Client.made.clear()
    Client.fails = {"commit_transaction": KafkaError._FENCED}
    with pytest.raises(OutcomeUnknown):
        stream.publish(BATCH)
    stream.publish(BATCH)
    assert len(Client.made) == 2


def test_what_is_fatal_for_a_client_is_found_behind_what_its_callbacks_met() -> None:
    fatal = KafkaException(KafkaError(KafkaError._FENCED, "the broker's words", fatal=True))
    with pytest.raises(KafkaException) as caught, client_callbacks():
        raise SystemError("a callback returned a result with an exception set") from fatal
    assert caught.value is fatal
    with pytest.raises(SystemError), client_callbacks():
        raise SystemError("something else")


@pytest.mark.parametrize("call", ["begin_transaction", "commit_transaction"])
def test_a_producer_that_was_fenced_ends_the_worker(stream: KafkaStream, call: str) -> None:
    """Another one has taken its name over: going on would only take it back."""
    Client.fails = {call: KafkaError._FENCED}
    with pytest.raises(StreamFailed):
        stream.publish(BATCH)
    stream.close()
