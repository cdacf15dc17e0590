"""The publishing side of ``KafkaStream``: a batch and its offsets, both or neither."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from worker.common.kafka import require_token
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    StreamFailed,
)
from worker.records.types import Batch, NextOffset, Outgoing
from worker.stream.kafka_config import KafkaConfig, compresses
from worker.stream.kafka_types import (
    HOPELESS,
    OF_A_RECORD,
    client_callbacks,
    client_log,
    describe,
    describe_exception,
    ends_the_worker,
    is_unreachable,
    to_kafka_offsets,
)

_log = structlog.get_logger("worker.stream")

T = TypeVar("T")

# An upper bound of the bytes around a record and around each header; brokers limit whole batches.
_FRAMING = 16
_NO_LIMIT = 1 << 62
_TOO_LARGE = "larger than its topic accepts"

# The wait for further reports of a batch that has failed already.
_FLUSH_STEP_S = 0.05

# The broker did not judge these records: they were purged with a transaction or a producer, or came
# after a record for which the transaction had failed, or next to one that it did judge.
_UNJUDGED = {
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError._STATE,
    KafkaError._INVALID_DIFFERENT_RECORD,
}


class _Refused(Exception):
    """Some records of a batch were refused, see ``KafkaPublisher._failed``."""


class _Failure(NamedTuple):
    """A record that was not delivered. ``place``: its partition, or ``at`` if it was not sent."""

    at: int
    """Its position in the batch's outputs."""
    error: KafkaError
    place: object


class OffsetCommitter(Protocol):
    """The consumer whose offsets are committed with the results."""

    def group_metadata(self) -> Any:
        """Return the current group membership, for a transaction's offsets.

        Raises PublishAborted if the group has removed this member."""
        ...

    def commit(self, next_offsets: Sequence[NextOffset]) -> None:
        """Commit offsets outside of a transaction. Blocks. Raises KafkaException."""
        ...

    def commit_again(self) -> None:
        """Commit the offsets that ``commit`` could not. Raises KafkaException."""
        ...


class KafkaPublisher:
    """Publishes batches with a producer and the consumer's group membership."""

    def __init__(self, config: KafkaConfig, consumer: OffsetCommitter) -> None:
        self._config = config
        self._consumer = consumer
        self._producer = KafkaProducer(config)
        self._failed: list[_Failure] = []
        self._largest: dict[str, int] = {}
        """By topic: below the smallest record that was refused alone for its size."""

    def start(self) -> None:
        """Start the producer, which ends a transaction that its predecessor left open. Raises
        StreamFailed."""
        timeout_s = self._config.start_timeout_s
        try:
            self._producer.ready(timeout_s)
        except PublishAborted as error:
            raise StreamFailed(
                f"the producer could not start within {timeout_s:g} s: {error}"
            ) from error

    def resolve(self) -> None:
        """Resolve the outcome of the last publish. Raises PublishAborted, StreamFailed.

        A new producer ends the open transaction. Without transactions, the offsets of written
        records are committed again.
        """
        self._producer.ready(self._config.publish_timeout_s)
        if not self._producer.transactional:
            # Only the commit is repeated: its records are written, and would come twice.
            try:
                self._consumer.commit_again()
            except KafkaException as error:
                raise _not_committed(error) from error

    def serve(self) -> None:
        """Run the client's callbacks. Does not block."""
        self._producer.serve()

    def publish(self, batch: Batch) -> None:
        """Publish a batch. Raises PublishAborted, OutputRefused, OutcomeUnknown, StreamFailed."""
        if too_large := self._too_large(batch.outputs):
            raise RecordTooLarge(_TOO_LARGE, too_large, certain=True)
        until = time.monotonic() + self._config.publish_timeout_s
        client = self._producer.ready(self._config.publish_timeout_s)
        self._failed = []
        if self._producer.transactional:
            self._publish_transaction(client, batch, until)
        else:
            self._publish_then_commit(client, batch, until)

    def close(self) -> None:
        """Free the client without publishing anything more."""
        self._producer.discard()

    def _publish_transaction(self, client: Producer, batch: Batch, until: float) -> None:
        offsets = to_kafka_offsets(batch.next_offsets)
        committing, began = False, time.monotonic()
        try:
            client.begin_transaction()
            self._produce(client, batch.outputs, until)
            self._flush(client, until)
            # Also if a record was refused: this call then fails with the transaction's reason.
            group = self._consumer.group_metadata()
            self._producer.repeat(
                lambda s: client.send_offsets_to_transaction(offsets, group, s), until
            )
            self._expect_no_refusal()
            committing = True
            self._producer.commit(client, until)
        except TimeoutError as error:
            self._producer.leave_behind()
            _log.warning("stream.producer_hangs", committing=committing)
            hung = "a transactional call hangs"
            kind = OutcomeUnknown if committing else PublishAborted
            raise kind(hung, unreachable=True) from error
        except (KafkaException, _Refused, PublishAborted) as error:
            raise self._undo(client, batch, error, began, committing=committing) from error

    def _undo(
        self, client: Producer, batch: Batch, error: Exception, began: float, *, committing: bool
    ) -> PublishAborted:
        """End a failed transaction; return the error to raise. Raises StreamFailed."""
        timed_out = time.monotonic() - began > self._config.transaction_timeout_s
        cause = error.args[0] if isinstance(error, KafkaException) else None
        if cause is not None and ends_the_worker(cause, timed_out=timed_out):
            raise StreamFailed(describe(cause)) from error
        refusal = self._refusal(error, batch)
        abortable = cause is None or cause.txn_requires_abort()
        aborted = abortable and self._producer.abort(client, timed_out=timed_out)
        # The broker answers records sent after a refused one with a gap in the sequence, sometimes
        # only within the next transaction. A new producer has no such gap.
        if aborted and not isinstance(refusal, OutputRefused):
            return refusal
        self._producer.discard()
        if committing and not aborted:  # it may be impossible to abort because it is committed
            return OutcomeUnknown(
                f"commit not answered: {describe_exception(error)}", unreachable=refusal.unreachable
            )
        return refusal

    def _publish_then_commit(self, client: Producer, batch: Batch, until: float) -> None:
        try:
            self._produce(client, batch.outputs, until)
            self._flush(client, until)
            self._expect_no_refusal()
        except (KafkaException, _Refused, PublishAborted) as error:
            cause = error.args[0] if isinstance(error, KafkaException) else None
            if cause is not None and cause.fatal():
                raise StreamFailed(describe(cause)) from error
            refusal = self._refusal(error, batch)
            self._producer.discard()  # together with its queue
            raise refusal from error
        try:
            self._consumer.commit(batch.next_offsets)
        except KafkaException as error:
            raise _not_committed(error) from error

    def _produce(self, client: Producer, outputs: Sequence[Outgoing], until: float) -> None:
        for index, outgoing in enumerate(outputs):
            while True:
                try:
                    client.produce(
                        outgoing.topic,
                        value=outgoing.value,
                        key=outgoing.key,
                        headers=list(outgoing.headers),
                        on_delivery=self._delivery(index),
                    )
                    break
                except BufferError:
                    if self._failed:
                        return  # a failed transaction does not send its queue
                    if time.monotonic() > until:
                        raise PublishAborted(
                            "the producer's queue stays full", unreachable=True
                        ) from None
                    with client_callbacks():
                        client.poll(0.05)
                except KafkaException as error:
                    # Above the client's own limit: reported at once, and the record is not queued.
                    # Of the wrong state: the transaction has failed for a record before this one,
                    # whose delivery says why.
                    code = error.args[0].code()
                    if code not in {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._STATE}:
                        raise
                    self._failed.append(_Failure(index, error.args[0], index))
                    if code == KafkaError._STATE:
                        return
                    break

    def _delivery(self, index: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                place = (message.topic(), message.partition())
                self._failed.append(_Failure(index, error, place))

        return delivered

    def _flush(self, client: Producer, until: float) -> None:
        """Wait for the broker's answers, but not for records behind a failed one.

        A transaction that has failed does not send them, and the client's flush would wait for them
        until its timeout.
        """
        with client_callbacks():
            while True:
                failed = len(self._failed)
                left = client.flush(_FLUSH_STEP_S)
                late = time.monotonic() > until
                if not left or late or 0 < failed == len(self._failed):
                    break
        if left and not self._failed:
            raise PublishAborted(f"{left} records not acknowledged in time", unreachable=True)

    def _too_large(self, outputs: Sequence[Outgoing]) -> list[int]:
        """Find records that are certainly too large, before they fail a whole transaction."""
        tried = None
        if compresses(self._config.producer):  # only the broker sees the compressed size
            tried = int(self._config.producer.get("message.max.bytes", _NO_LIMIT))
        return [
            index
            for index, outgoing in enumerate(outputs)
            if _framed_bytes(outgoing) > (tried or self._limit(outgoing))
        ]

    def _limit(self, outgoing: Outgoing) -> int:
        return self._config.max_record_bytes.get(outgoing.topic, _NO_LIMIT)

    def _blame(self, outputs: Sequence[Outgoing], reason: KafkaError) -> OutputRefused:
        """Return which records were refused for ``reason``, and whether they are to blame for sure.

        The broker refuses all records of a partition that were sent together. It names those to
        blame, but the client passes that on only if there are several: it then reports
        ``_INVALID_DIFFERENT_RECORD`` for the others (librdkafka 2.16). One that nobody names may be
        any of those that were sent together. So a record is to blame for sure if none of its
        neighbours in the partition was refused for the same reason, or if it breaks a rule that is
        known: the topic's size limit, or the key that a compacted topic needs.
        """
        refused: set[int] = set()
        sure: set[int] = set()
        self._failed.sort(key=lambda failure: (str(failure.place), failure.at))
        runs = groupby(self._failed, lambda failure: (failure.place, failure.error.code()))
        for (_, code), failures in runs:
            if code == reason.code():
                run = {failure.at for failure in failures}
                refused |= run
                sure |= run if len(run) == 1 else set()
        too_large = reason.code() == KafkaError.MSG_SIZE_TOO_LARGE
        if too_large:  # so that the others do not have to be refused alone, too
            for at in sure:
                topic, size_bytes = outputs[at].topic, _framed_bytes(outputs[at])
                self._largest[topic] = min(size_bytes - 1, self._largest.get(topic, _NO_LIMIT))
        breaks_rule = self._exceeds_limit if too_large else self._lacks_key
        sure.update(at for at in refused or range(len(outputs)) if breaks_rule(outputs[at]))
        kind = RecordTooLarge if too_large else OutputRefused
        said = _TOO_LARGE if too_large else describe(reason)
        return kind(said, sorted(sure or refused), certain=bool(sure))

    def _exceeds_limit(self, outgoing: Outgoing) -> bool:
        limit = min(self._limit(outgoing), self._largest.get(outgoing.topic, _NO_LIMIT))
        return _framed_bytes(outgoing) > limit

    def _lacks_key(self, outgoing: Outgoing) -> bool:
        return outgoing.key is None and outgoing.topic in self._config.compacted

    def _expect_no_refusal(self) -> None:
        if self._failed:
            raise _Refused

    def _refusal(self, error: Exception, batch: Batch) -> PublishAborted:
        """Return why nothing was published, with the records to blame."""
        judged = [failure for failure in self._failed if failure.error.code() not in _UNJUDGED]
        for failure in judged:
            if failure.error.code() in HOPELESS:
                topic = batch.outputs[failure.at].topic
                raise StreamFailed(f"producing to {topic}: {describe(failure.error)}") from error
        reasons = [failure.error for failure in judged]
        if isinstance(error, KafkaException):
            reasons.append(error.args[0])
        for reason in reasons:
            if reason.code() in OF_A_RECORD:
                return self._blame(batch.outputs, reason)
            if reason.code() in HOPELESS:
                # The error of a transaction does not name the topic.
                written = ", ".join(sorted({each.topic for each in batch.outputs}))
                raise StreamFailed(f"producing to {written}: {describe(reason)}") from error
        if not reasons:
            unreachable = isinstance(error, PublishAborted) and error.unreachable
            return PublishAborted(describe_exception(error), unreachable=unreachable)
        return PublishAborted(
            describe(reasons[0]), unreachable=all(is_unreachable(reason) for reason in reasons)
        )


def _framed_bytes(outgoing: Outgoing) -> int:
    return outgoing.size_bytes + _FRAMING * (len(outgoing.headers) + 8)


def _not_committed(error: KafkaException) -> PublishAborted:
    """Return why the offsets of written records were not committed. Raises StreamFailed."""
    cause = error.args[0]
    if cause.fatal() or cause.code() in HOPELESS:
        raise StreamFailed(describe(cause)) from error
    return OutcomeUnknown(
        f"the records are written but their offsets are not committed: {describe(cause)}",
        unreachable=is_unreachable(cause),
    )


_CALL_S = 5.0  # one blocking call; longer waits repeat it
_HANG_S = 2.0  # a call that exceeds its time limit by this much hangs


class KafkaProducer:
    """Holds one producer at a time and bounds the time of its transactional calls.

    Transactional calls may hang beyond their time limit (librdkafka issues 5456 and 5511, open in
    2.16: after the group's coordinator went away). They run on a second thread, while the
    publishing thread waits for a bounded time. A producer that hangs is abandoned; the next one,
    with the same transactional.id, ends its open transaction.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self.transactional = config.delivery == "exactly_once"
        self._client: Producer | None = None
        self._calls: BoundedCaller | None = None

    def ready(self, timeout_s: float) -> Producer:
        """Return the producer, or a new one if the last was discarded.

        Initializing a transactional.id ends its last holder's open transaction, so a new producer
        starts from a known state (librdkafka issue 5423 recommends this after a commit without an
        answer). Raises PublishAborted or StreamFailed.
        """
        if self._client is not None:
            return self._client
        try:
            require_token(self._config.producer, StreamFailed)
        except StreamFailed as error:  # the token service may be back in a moment
            raise PublishAborted(str(error), unreachable=True) from error
        # With an error callback: without one a fatal error surfaces as a SystemError within the
        # callback of a delivery.
        client = self._client = Producer(
            dict(self._config.producer), error_cb=_on_error, logger=client_log
        )
        if self.transactional:
            self._calls = BoundedCaller("transactions")
            try:
                self.repeat(client.init_transactions, time.monotonic() + timeout_s)
            except TimeoutError as error:
                self.leave_behind()
                raise PublishAborted("init_transactions hangs", unreachable=True) from error
            except KafkaException as error:
                self.discard()
                if error.args[0].fatal() or error.args[0].code() in HOPELESS:
                    raise StreamFailed(describe(error.args[0])) from error
                raise PublishAborted(
                    describe(error.args[0]), unreachable=is_unreachable(error.args[0])
                ) from error
        return client

    def serve(self) -> None:
        """Run the client's callbacks, if there is a client. Does not block.

        The next transaction raises a fatal error again.
        """
        if self._client is not None:
            self._poll(self._client)

    def repeat(self, call: Callable[[float], object], until: float, *, resume: bool = True) -> None:
        """Repeat a transactional call while its error is retriable and time is left.

        ``call`` gets its time limit in seconds. Without ``resume`` that is all the time left, and
        the call is not repeated after a timeout. Raises KafkaException, or TimeoutError if it
        hangs.
        """
        assert self._calls is not None
        while True:
            left = until - time.monotonic()
            seconds = max(0.1, min(_CALL_S, left) if resume else left)
            try:
                self._calls.call(partial(call, seconds), seconds + _HANG_S)
            except KafkaException as error:
                cause = error.args[0]
                over = time.monotonic() >= until
                if not resume and cause.code() == KafkaError._TIMED_OUT:
                    over = True
                if over or not cause.retriable():
                    raise
            else:
                return

    def commit(self, client: Producer, until: float) -> None:
        """Commit the open transaction. Raises like ``repeat``; after a timeout it is in doubt.

        A commit that timed out must not be repeated. If the second call returns while the library's
        thread is too busy to take it, librdkafka (2.16, ``rd_kafka_commit_transaction``) forgets
        the commit, takes its late answer for an abort's, and ends the process with the assertion
        "Invalid transaction state transition".
        """
        self.repeat(client.commit_transaction, until, resume=False)

    def abort(self, client: Producer, *, timed_out: bool = False) -> bool:
        """Abort the open transaction; return whether it is aborted. Raises StreamFailed.

        ``timed_out``: it was open for longer than its timeout at the broker."""
        try:
            self.repeat(client.abort_transaction, time.monotonic() + _CALL_S)
        except TimeoutError:
            self.leave_behind()
            return False
        except KafkaException as error:
            if ends_the_worker(error.args[0], timed_out=timed_out):
                raise StreamFailed(describe(error.args[0])) from error
            return False
        return True

    def leave_behind(self) -> None:
        """Abandon a producer that hangs, without another call to it."""
        self._client = self._calls = None

    def discard(self) -> None:
        """Discard the producer and its queue."""
        if self._client is not None:
            self._client.purge()
            self._poll(self._client)
            self._client = None
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    def _poll(self, client: Producer) -> None:
        try:
            with client_callbacks():
                client.poll(0)
        except KafkaException as error:
            _log.debug("stream.producer_failed", error=describe(error.args[0]))


def _on_error(error: KafkaError) -> None:
    # Logged only: a fenced or failed producer reports that in its own calls, and the errors of an
    # abandoned one must not stop the worker.
    _log.warning("stream.client_error", error=describe(error))


class BoundedCaller:
    """Runs blocking calls on its own thread and limits the wait for each.

    A call that hangs cannot be ended. Its thread is abandoned, and the caller must abandon this
    object and the object that it called.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Run ``function`` and return its result. Raises its error, or TimeoutError if it hangs."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        return future.result(timeout=timeout_s)

    def close(self) -> None:
        """End the thread once its call has returned."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            function, future = item
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - ``call`` raises it again
                future.set_exception(error)
