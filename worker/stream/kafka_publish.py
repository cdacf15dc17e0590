"""The publishing side of ``KafkaStream``: a batch and its offsets, in one step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

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

# Bytes around a record and each of its headers in a batch, generously; brokers limit the batch.
_FRAMING = 16
_NO_LIMIT = 1 << 62

# Records that were never judged: they went with a failed transaction or an old producer.
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}


class _Refused(Exception):
    """Some records of a batch were refused; ``_failed`` says which."""


class OffsetCommitter(Protocol):
    """Whose offsets are committed with the results."""

    def group_metadata(self) -> Any:
        """Return the membership as the producer's transaction wants it, as of this moment.

        Raises PublishAborted when there is none any more."""
        ...

    def commit(self, next_offsets: Sequence[NextOffset]) -> None:
        """Commit offsets outside of a transaction. Blocks. Raises KafkaException."""
        ...

    def commit_again(self) -> None:
        """Commit what the last ``commit`` could not. Raises KafkaException."""
        ...


class KafkaPublisher:
    """Publishes batches with its own producer and the consumer's membership."""

    def __init__(self, config: KafkaConfig, consumer: OffsetCommitter) -> None:
        self._config = config
        self._consumer = consumer
        self._producer = KafkaProducer(config)
        self._failed: list[tuple[int, KafkaError]] = []

    def ready(self, timeout_s: float) -> None:
        """Make the producer ready. Raises PublishAborted (not within the time) or StreamFailed."""
        self._producer.ready(timeout_s)

    def resolve(self, timeout_s: float) -> None:
        """End what the last publish left in doubt: its transaction, by a new producer, or the
        commit of offsets whose records are written. Raises as ``ready``."""
        self._producer.ready(timeout_s)
        if not self._producer.transactional:
            try:
                self._consumer.commit_again()
            except KafkaException as error:
                raise _not_committed(error) from error

    def serve(self) -> None:
        """Let the client call back. Does not block."""
        self._producer.serve()

    def publish(self, batch: Batch) -> None:
        """Publish a batch. Raises PublishAborted, OutputRefused, OutcomeUnknown, StreamFailed."""
        if too_large := self._too_large(batch.outputs):
            raise RecordTooLarge(too_large)
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
            # Also after a record was refused: it then fails, with the transaction's own reason.
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
            hung = "a transactional call does not come back"
            kind = OutcomeUnknown if committing else PublishAborted
            raise kind(hung, unreachable=True) from error
        except (KafkaException, _Refused, PublishAborted) as error:
            raise self._undo(client, batch, error, began, committing=committing) from error

    def _undo(
        self, client: Producer, batch: Batch, error: Exception, began: float, *, committing: bool
    ) -> PublishAborted:
        """End a transaction that failed; return what to raise. Raises StreamFailed."""
        timed_out = time.monotonic() - began > self._config.transaction_timeout_s
        cause = error.args[0] if isinstance(error, KafkaException) else None
        if cause is not None and ends_the_worker(cause, timed_out=timed_out):
            raise StreamFailed(describe(cause)) from error
        refusal = self._refusal(error, batch)
        abortable = cause is None or cause.txn_requires_abort()
        aborted = abortable and self._producer.abort(client, timed_out=timed_out)
        # What was sent after a record that the broker refused is answered with a gap in the
        # sequence, sometimes only within the next transaction: a new producer has none.
        if aborted and not isinstance(refusal, RecordTooLarge):
            return refusal
        self._producer.discard()
        if committing and not aborted:  # the commit may be what cannot be aborted any more
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
            if not isinstance(refusal, RecordTooLarge):
                self._producer.discard()  # with whatever is still queued in it
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
                    if time.monotonic() > until:
                        raise PublishAborted(
                            "the producer's queue stays full", unreachable=True
                        ) from None
                    with client_callbacks():
                        client.poll(0.05)
                except KafkaException as error:
                    # Too large for the client's own limit: known at once, the record is not queued.
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise
                    self._failed.append((index, error.args[0]))
                    break

    def _delivery(self, index: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._failed.append((index, error))

        return delivered

    def _flush(self, client: Producer, until: float) -> None:
        with client_callbacks():
            left = client.flush(max(0.1, until - time.monotonic()))
        if left and not self._failed:
            raise PublishAborted(f"{left} records not acknowledged in time", unreachable=True)

    def _too_large(self, outputs: Sequence[Outgoing]) -> list[int]:
        """Find what is certainly too large, before a transaction is spoiled by it."""
        tried = None
        if compresses(self._config.producer):  # how small a record becomes is for the broker to see
            tried = int(self._config.producer.get("message.max.bytes", _NO_LIMIT))
        return [
            index
            for index, outgoing in enumerate(outputs)
            if _framed_bytes(outgoing) > (tried or self._limit(outgoing))
        ]

    def _limit(self, outgoing: Outgoing) -> int:
        return self._config.max_record_bytes.get(outgoing.topic, _NO_LIMIT)

    def _blame(self, outputs: Sequence[Outgoing], refused: Sequence[int]) -> RecordTooLarge:
        """Choose who is too large of those that were ``refused`` for size (none: of all).

        A batch is refused whole. Where its topic's limit is known no two records that would fit it
        were in one; where it is not, the largest is, and the others may go again.
        """
        large = [at for at in refused if _framed_bytes(outputs[at]) > self._limit(outputs[at])]
        if large:
            return RecordTooLarge(large)
        among = refused or range(len(outputs))
        known = {at: _framed_bytes(outputs[at]) / self._limit(outputs[at]) for at in among}
        return RecordTooLarge([max(known, key=known.__getitem__)])

    def _expect_no_refusal(self) -> None:
        if self._failed:
            raise _Refused

    def _refusal(self, error: Exception, batch: Batch) -> PublishAborted:
        """Name the reason nothing was published; records that are too large by their places."""
        too_large = {
            index
            for index, refused in self._failed
            if refused.code() == KafkaError.MSG_SIZE_TOO_LARGE
        }
        if too_large:
            return self._blame(batch.outputs, sorted(too_large))
        judged = [each for each in self._failed if each[1].code() not in _PURGED]
        for index, refused in judged:
            if refused.code() in HOPELESS:
                topic = batch.outputs[index].topic
                raise StreamFailed(f"producing to {topic}: {describe(refused)}") from error
        reasons = [refused for _, refused in judged]
        if isinstance(error, KafkaException):
            reasons.append(error.args[0])
        for reason in reasons:
            if reason.code() in OF_A_RECORD:
                return OutputRefused(describe(reason))
            if reason.code() in HOPELESS:
                # A transaction that fails for it does not say which of them it was.
                written = ", ".join(sorted({each.topic for each in batch.outputs}))
                raise StreamFailed(f"producing to {written}: {describe(reason)}") from error
            if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                # A transaction that failed for it takes every record down and names none.
                return self._blame(batch.outputs, ())
        if not reasons:
            unreachable = isinstance(error, PublishAborted) and error.unreachable
            return PublishAborted(describe_exception(error), unreachable=unreachable)
        return PublishAborted(
            describe(reasons[0]), unreachable=all(is_unreachable(reason) for reason in reasons)
        )


def _framed_bytes(outgoing: Outgoing) -> int:
    return outgoing.size_bytes + _FRAMING * (len(outgoing.headers) + 8)


def _not_committed(error: KafkaException) -> PublishAborted:
    """Name why offsets of records that are written were not committed. Raises StreamFailed."""
    cause = error.args[0]
    if cause.fatal() or cause.code() in HOPELESS:
        raise StreamFailed(describe(cause)) from error
    return OutcomeUnknown(
        f"written, and the offsets are not committed: {describe(cause)}",
        unreachable=is_unreachable(cause),
    )


_CALL_S = 5.0  # one blocking call; longer waits are made of repeated ones
_HANG_S = 2.0  # a call that exceeds its limit by so much does not come back


class KafkaProducer:
    """Holds one producer at a time, and makes its transactional calls within bounds.

    Everything runs on the thread that publishes, except the transactional calls. Those may hang
    beyond their time limit (librdkafka issues 5456 and 5511, open in 2.16: after the group's
    coordinator went away), so they are made on a second thread, while the first waits for a bounded
    time. A producer that hangs is left behind; the next one, under the same transactional.id,
    settles what it left open.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self.transactional = config.delivery == "exactly_once"
        self._client: Producer | None = None
        self._calls: BoundedCaller | None = None

    def ready(self, timeout_s: float) -> Producer:
        """Return the producer, a new one if the last was thrown away.

        Initialising a transactional.id ends whatever its last holder left open, so that a new
        producer starts from a settled state (librdkafka issue 5423 asks for just this after a
        commit that was not answered). Raises PublishAborted or StreamFailed.
        """
        if self._client is not None:
            return self._client
        try:
            require_token(self._config.producer, StreamFailed)
        except StreamFailed as error:  # its service may be back in a moment
            raise PublishAborted(str(error), unreachable=True) from error
        client = self._client = Producer(
            dict(self._config.producer), error_cb=_on_error, logger=client_log
        )
        if self.transactional:
            self._calls = BoundedCaller("transactions")
            try:
                self.repeat(client.init_transactions, time.monotonic() + timeout_s)
            except TimeoutError as error:
                self.leave_behind()
                raise PublishAborted(
                    "init_transactions does not come back", unreachable=True
                ) from error
            except KafkaException as error:
                self.discard()
                if error.args[0].fatal() or error.args[0].code() in HOPELESS:
                    raise StreamFailed(describe(error.args[0])) from error
                raise PublishAborted(
                    describe(error.args[0]), unreachable=is_unreachable(error.args[0])
                ) from error
        return client

    def serve(self) -> None:
        """Let the client call back, if there is one. Does not block.

        A fatal error is raised again by its next transaction.
        """
        if self._client is not None:
            self._poll(self._client)

    def repeat(self, call: Callable[[float], object], until: float, *, resume: bool = True) -> None:
        """Make a transactional call again while its error is retriable and time is left.

        ``call`` is given its time limit in seconds. Unless it may ``resume`` what it began, that is
        all of the time, and it is not made again once it has timed out. Raises KafkaException, or
        TimeoutError when it does not come back.
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
        """Commit the open transaction. Raises as ``repeat``; what timed out is in doubt.

        A commit that timed out must not be called again. If that call ends while the library's
        thread is too busy to take it, librdkafka (2.16, ``rd_kafka_commit_transaction``) forgets
        that a commit is under way, takes the late answer to it for an abort's, and ends the process
        by an assertion, "Invalid transaction state transition".
        """
        self.repeat(client.commit_transaction, until, resume=False)

    def abort(self, client: Producer, *, timed_out: bool = False) -> bool:
        """Abort the open transaction; return whether that was done. Raises StreamFailed.

        ``timed_out``: it was open for longer than the broker lets it be."""
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
        """Forget a producer that hangs: it must not be touched again."""
        self._client = self._calls = None

    def discard(self) -> None:
        """Throw the producer away, with whatever is still queued in it."""
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
    # A fenced or failed producer says so in its own calls; one left behind must not be heard.
    _log.warning("stream.client_error", error=describe(error))


class BoundedCaller:
    """Makes blocking calls on its own thread and waits for each no longer than it may take.

    A call that does not return in time cannot be ended: its thread is left behind, and so must
    be this object and whatever the call was made on.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Return what ``function`` returns or raise what it raises; TimeoutError if it hangs."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        return future.result(timeout=timeout_s)

    def close(self) -> None:
        """End the thread, once it is free."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            function, future = item
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised again by ``call``
                future.set_exception(error)
