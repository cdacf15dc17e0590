"""The producer client of ``KafkaStream``, made anew when the last one cannot be used any more.

Everything runs on the thread that publishes, but for the transactional calls: those may hang
beyond their time limit (librdkafka issues 5456 and 5511, open in 2.16: after the group's
coordinator went away), so they are made on a second thread, while the first waits for a bounded
time. A producer that hangs is left behind; the next one, under the same transactional.id, settles
what it left open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from worker.common.kafka import require_token
from worker.errors import PublishAborted, StreamFailed
from worker.stream.bounded import BoundedCaller
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_types import (
    HOPELESS,
    client_callbacks,
    client_log,
    describe,
    ends_the_worker,
    is_unreachable,
)

_log = structlog.get_logger("worker.stream")

_CALL_S = 5.0  # one blocking call; longer waits are made of repeated ones
_HANG_S = 2.0  # a call that takes so much longer than it was told to does not come back


class KafkaProducer:
    """Holds one producer at a time, and makes its transactional calls within bounds."""

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

        What is fatal for it is told again by its next transaction.
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
        """Abort the open transaction; tell whether that was done. Raises StreamFailed.

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
