"""Publishing a replay: results and progress in one transaction, each batch once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    StreamFailed,
)
from worker.records.types import Batch, NextOffset, Outgoing, TopicPartition
from worker.stream.kafka_publish import KafkaPublisher

_log = structlog.get_logger("worker.replay")

_MAX_BACKOFF_S = 10.0

Replace = Callable[[int, Outgoing, str], Outgoing]
"""Gives what is written in place of the result at an index that is too large."""


class ReplayPublisher:
    """Publishes with the offsets of the replay's own group as the progress.

    ``committed`` reads them. A second command under the same replay id fences the first.
    """

    def __init__(
        self,
        publisher: KafkaPublisher,
        committed: Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int]],
        *,
        attempts: int,
        backoff_s: float,
        timeout_s: float,
    ) -> None:
        self._publisher = publisher
        self._committed = committed
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._timeout_s = timeout_s

    def start(self) -> None:
        """End what an earlier run of this replay left open. Raises StreamFailed."""
        self._repeat(lambda: self._publisher.ready(self._timeout_s))

    def publish(
        self, outputs: Sequence[Outgoing], next_offsets: Sequence[NextOffset], smaller: Replace
    ) -> None:
        """Publish a batch once. Nothing of it is published when this raises StreamFailed, or
        OutputRefused: the broker does not take one of its records."""
        batch = list(outputs)

        def once() -> None:
            while True:
                try:
                    self._publisher.publish(Batch(batch, next_offsets))
                except RecordTooLarge as error:
                    for index in error.indexes:
                        batch[index] = smaller(index, batch[index], str(error))
                except OutcomeUnknown:
                    if self._was_published(next_offsets):
                        return
                    raise
                else:
                    return

        self._repeat(once)

    def close(self) -> None:
        """Free the client."""
        self._publisher.close()

    def _was_published(self, next_offsets: Sequence[NextOffset]) -> bool:
        """Settle a commit that was not answered: a new producer ends it, one way or the other."""
        self._repeat(lambda: self._publisher.ready(self._timeout_s))
        found = self._committed([following.source for following in next_offsets])
        return all(found.get(following.source, 0) >= following.offset for following in next_offsets)

    def _repeat(self, call: Callable[[], None]) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                call()
            except OutputRefused:
                raise  # the same batch will be refused again
            except PublishAborted as error:
                if attempt == self._attempts:
                    raise StreamFailed(
                        f"nothing could be published in {attempt} attempts ({error}); the same "
                        "command goes on from there"
                    ) from error
                _log.warning("replay.not_published", attempt=attempt, error=str(error))
                time.sleep(min(_MAX_BACKOFF_S, self._backoff_s * 2 ** (attempt - 1)))
            else:
                return
