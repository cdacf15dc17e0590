"""Transactions and commits that fail, on a scripted client."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.rig import make_kafka_config
from worker.errors import OutcomeUnknown, PublishAborted, StreamFailed
from worker.records.types import Batch, NextOffset, Outgoing, TopicPartition
from worker.stream import kafka, kafka_publish
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_types import client_callbacks

BATCH = Batch([Outgoing("out", None, b"x", ())], [NextOffset(TopicPartition("in", 0), 1)])


class Client:
    """Replaces Consumer and Producer.

    ``fails``: calls that raise a fatal error. ``passing``: calls that raise an error once that is
    retriable or demands an abort.
    """

    made: list["Client"]
    fails: dict[str, int]
    passing: dict[str, int]
    unacknowledged: int

    def __init__(self, *_: Any, **__: Any) -> None:
        self.dead: int | None = None
        self.calls: list[str] = []
        self.made.append(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> int:
            self.calls.append(name)
            if code := self.passing.pop(name, None):
                lost = code == KafkaError._INCONSISTENT
                raise KafkaException(
                    KafkaError(code, "its words", retriable=not lost, txn_requires_abort=lost)
                )
            self.dead = self.fails.pop(name, self.dead)
            if self.dead is not None and name not in {"purge", "close"}:
                raise KafkaException(KafkaError(self.dead, "the broker's words", fatal=True))
            return {"flush": self.unacknowledged, "memberid": 1}.get(name, 0)

        return call


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> KafkaStream:
    monkeypatch.setattr(kafka, "Consumer", Client)
    monkeypatch.setattr(kafka_publish, "Producer", Client)
    Client.made, Client.fails, Client.passing, Client.unacknowledged = [], {}, {}, 0
    return KafkaStream(make_kafka_config(delivery="exactly_once"))


def test_a_commit_of_a_transaction_that_the_broker_ended_is_in_doubt(
    stream: KafkaStream,
) -> None:
    Client.fails = {"commit_transaction": KafkaError.INVALID_TXN_STATE}
    with pytest.raises(OutcomeUnknown, match="commit not answered"):
        stream.publish(BATCH)
    stream.publish(BATCH)
    assert len(Client.made) == 3  # a consumer and two producers
    assert Client.made[2].calls[0] == "init_transactions"
    assert Client.made[2].calls[-1] == "commit_transaction"
    stream.close()
    assert Client.made[0].calls[-2:] == ["unsubscribe", "close"]  # or it would stay in the group


@pytest.mark.parametrize(
    ("code", "calls"), [(KafkaError._TIMED_OUT, 1), (KafkaError._TRANSPORT, 2)]
)
def test_a_commit_that_timed_out_is_not_repeated(
    stream: KafkaStream, code: int, calls: int
) -> None:
    """One that the client could not send is. After a timeout, the next batch has a new producer."""
    Client.passing = {"commit_transaction": code}
    if code == KafkaError._TIMED_OUT:
        with pytest.raises(OutcomeUnknown, match="commit not answered") as caught:
            stream.publish(BATCH)
        assert caught.value.unreachable
    else:
        stream.publish(BATCH)
    assert Client.made[1].calls.count("commit_transaction") == calls
    stream.publish(BATCH)
    assert len(Client.made) == 4 - calls
    assert Client.made[-1].calls[-1] == "commit_transaction"


def test_a_failed_commit_that_cannot_be_aborted_is_in_doubt(stream: KafkaStream) -> None:
    """It may be impossible to abort because it is committed."""
    Client.passing = {"commit_transaction": KafkaError._INCONSISTENT}
    Client.fails = {"abort_transaction": KafkaError.INVALID_TXN_STATE}
    with pytest.raises(OutcomeUnknown):
        stream.publish(BATCH)


def test_an_abort_of_a_transaction_that_the_broker_ended_succeeds(stream: KafkaStream) -> None:
    Client.fails = {"abort_transaction": KafkaError.INVALID_TXN_STATE}
    Client.unacknowledged = 1
    with pytest.raises(PublishAborted) as caught:
        stream.publish(BATCH)
    assert not isinstance(caught.value, OutcomeUnknown)
    Client.unacknowledged = 0
    stream.publish(BATCH)
    assert len(Client.made) == 3


def test_a_fence_after_the_transactions_timeout_does_not_end_the_worker(
    stream: KafkaStream,
) -> None:
    """The worker was away for too long; no other worker has taken its transactional.id."""
    short = {"transaction.timeout.ms": 0}
    stream = KafkaStream(make_kafka_config(delivery="exactly_once", producer=short))
    Client.made.clear()
    Client.fails = {"commit_transaction": KafkaError._FENCED}
    with pytest.raises(OutcomeUnknown):
        stream.publish(BATCH)
    stream.publish(BATCH)
    assert len(Client.made) == 2


def test_a_fatal_error_behind_a_system_error_is_found() -> None:
    fatal = KafkaException(KafkaError(KafkaError._FENCED, "the broker's words", fatal=True))
    with pytest.raises(KafkaException) as caught, client_callbacks():
        raise SystemError("a callback returned a result with an exception set") from fatal
    assert caught.value is fatal
    with pytest.raises(SystemError), client_callbacks():
        raise SystemError("something else")


@pytest.mark.parametrize("call", ["begin_transaction", "commit_transaction"])
def test_a_producer_that_was_fenced_ends_the_worker(stream: KafkaStream, call: str) -> None:
    """Another worker has its transactional.id; a new producer would only take it back."""
    Client.fails = {call: KafkaError._FENCED}
    with pytest.raises(StreamFailed):
        stream.publish(BATCH)
    stream.close()


SOURCE = TopicPartition("in", 0)
LATE_BATCH = Batch([Outgoing("out", None, b"x", ())], [NextOffset(SOURCE, 1)])


class ConsumerClient:
    """Replaces Consumer and Producer; the next commits raise ``commit_errors``."""

    produced: list[Any]
    commits: list[list[tuple[int, int]]]
    commit_errors: list[int]
    callbacks: dict[str, Callable[[Any, Any], None]]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_, **__: 0

    def subscribe(self, _: Any, **callbacks: Callable[[Any, Any], None]) -> None:
        type(self).callbacks = callbacks

    def produce(self, *given: Any, **_: Any) -> None:
        self.produced.append(given)

    def commit(self, offsets: list[KafkaPartition], **_: Any) -> list[KafkaPartition]:
        if self.commit_errors:
            raise KafkaException(KafkaError(self.commit_errors.pop(0)))
        self.commits.append([(each.partition, each.offset) for each in offsets])
        return offsets

    def committed(self, partitions: list[KafkaPartition], **_: Any) -> list[KafkaPartition]:
        known = dict(pair for commit in self.commits for pair in commit)
        return [
            KafkaPartition(each.topic, each.partition, known.get(each.partition, -1001))
            for each in partitions
        ]


class Owner:
    """A listener that ignores rebalances."""

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        return lambda _: None


@pytest.fixture
def committing_stream(monkeypatch: pytest.MonkeyPatch) -> KafkaStream:
    monkeypatch.setattr(kafka, "Consumer", ConsumerClient)
    monkeypatch.setattr(kafka_publish, "Producer", ConsumerClient)
    ConsumerClient.produced, ConsumerClient.commits, ConsumerClient.commit_errors = [], [], []
    made = KafkaStream(make_kafka_config(delivery="at_least_once"))
    made.subscribe(Owner())
    return made


def test_only_the_commit_is_repeated_when_only_the_commit_failed(
    committing_stream: KafkaStream,
) -> None:
    ConsumerClient.commit_errors = [
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    ]
    with pytest.raises(OutcomeUnknown, match="written but their offsets are not committed"):
        committing_stream.publish(LATE_BATCH)
    with pytest.raises(OutcomeUnknown):
        committing_stream.resolve_unknown_commit([SOURCE])
    assert committing_stream.resolve_unknown_commit([SOURCE]) == [NextOffset(SOURCE, 1)]
    assert len(ConsumerClient.produced) == 1
    assert ConsumerClient.commits == [[(0, 1)]]


@pytest.mark.parametrize("how", ["on_revoke", "on_lost"])
def test_an_offset_of_a_partition_that_went_away_is_never_committed(
    committing_stream: KafkaStream, how: str
) -> None:
    ConsumerClient.commit_errors = [KafkaError.REQUEST_TIMED_OUT]
    with pytest.raises(OutcomeUnknown):
        committing_stream.publish(LATE_BATCH)
    ConsumerClient.callbacks[how](None, [KafkaPartition("in", 0)])
    assert committing_stream.resolve_unknown_commit([]) == []
    assert ConsumerClient.commits == []


def test_a_commit_without_the_right_to_it_ends_the_worker(committing_stream: KafkaStream) -> None:
    ConsumerClient.commit_errors = [KafkaError.GROUP_AUTHORIZATION_FAILED]
    with pytest.raises(StreamFailed, match="no right to use the consumer group"):
        committing_stream.publish(LATE_BATCH)
