"""What the worker needs of Kafka. One thread calls all of it but ``lag`` and ``oldest_ms``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from worker.records.types import Batch, CommittedOffset, NextOffset, Record, TopicPartition


class AssignmentListener(Protocol):
    """Told of partitions that come and go. Called from within ``Stream.poll`` alone."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions are ours from now on; their records follow.

        None at all: the worker is in the group, which had nothing (more) for it.
        """
        ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions go to another worker when this returns: publish what is finished."""
        ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions are another worker's already: publish nothing of theirs."""
        ...


class Stream(Protocol):
    """Source and sink in one, since results and offsets are published in one step."""

    def subscribe(self, listener: AssignmentListener) -> None:
        """Join the consumer group."""
        ...

    def poll(
        self,
        max_records: int,
        timeout_s: float,
        *,
        max_bytes: int | None = None,
        stop_after: Callable[[Record], bool] | None = None,
    ) -> Sequence[Record]:
        """Serve the client and return up to ``max_records``, in order by partition.

        The last of them may be the one with which they are larger than ``max_bytes``, and is the
        first that ``stop_after`` holds for: so its partition can be paused behind it. Waits up to
        ``timeout_s`` for a first record and for no further one. ``max_records=0`` only serves the
        client. Raises StreamFailed.
        """
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver no more records of these until ``resume``, or until they go and come back."""
        ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver records again, from where each partition stopped."""
        ...

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Deliver a partition's records from ``offset`` on, which is committed: later than now."""
        ...

    def publish(self, batch: Batch) -> None:
        """Publish outputs and next offsets: both, or neither. Blocks, within a bound.

        Without outputs it commits the offsets alone, with their notes; the same ones again too.

        Raises PublishAborted (nothing was published; may be tried again) and its two special
        cases, OutputRefused and OutcomeUnknown, or StreamFailed (this worker must end).
        """
        ...

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """After OutcomeUnknown: return the committed offsets of ``partitions``.

        Whatever was in the air is resolved when this returns. Partitions with no committed
        offset are left out. Raises PublishAborted (cannot tell yet) or StreamFailed.
        """
        ...

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Return the committed offset of each of ``partitions``, with its note. Blocks.

        Quick once a record of them has come. Raises PublishAborted (cannot tell yet).
        """
        ...

    def lag(self) -> Mapping[TopicPartition, int]:
        """How many records of each assigned partition are not done, as last reported.

        Safe from any thread; asks no broker. Partitions of which nothing is known are left out.
        """
        ...

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Timestamp of the oldest record that was delivered and is not published, by partition.

        Unix milliseconds; partitions without one are left out. As of the last report, like ``lag``.
        """
        ...

    def close(self) -> None:
        """Leave the group and free the client. Safe to call twice."""
        ...
