"""The worker's port to Kafka. One thread calls all methods except ``lag`` and ``oldest_ms``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from worker.records.types import Batch, CommittedOffset, NextOffset, Record, TopicPartition


class AssignmentListener(Protocol):
    """Handles rebalances. Called only from within ``Stream.poll``."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Start these partitions. No partitions: the worker has joined the group as a spare."""
        ...

    def on_positioned(self, partitions: Sequence[TopicPartition]) -> None:
        """Check the committed offsets of these partitions, which the client now knows: it may wait
        at them for a long time."""
        ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Publish finished results of these partitions: another worker gets them afterwards."""
        ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop these partitions without publishing: another worker owns them already."""
        ...


class Sink(Protocol):
    """Publishes results together with offsets. A replay needs no more than this."""

    def publish(self, batch: Batch) -> None:
        """Publish outputs and next offsets: both, or neither. Blocks, for a bounded time.

        Without outputs, commit the offsets with their notes; an offset may be committed twice.

        Raises PublishAborted (nothing was published; may be retried) and its two special cases,
        OutputRefused and OutcomeUnknown, or StreamFailed (this worker must stop).
        """
        ...

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """After OutcomeUnknown: return the committed offsets of ``partitions``.

        The commit in doubt is resolved when this returns. Partitions without a committed offset are
        left out. Raises PublishAborted (unknown so far) or StreamFailed.
        """
        ...


class Stream(Sink, Protocol):
    """Source and sink in one, because results and offsets are published together."""

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

        Stops after the record that exceeds ``max_bytes``, and after the first one for which
        ``stop_after`` is true, so that its partition can be paused behind it. Waits up to
        ``timeout_s`` for the first record and does not wait for more. ``max_records=0`` only serves
        the client. Raises StreamFailed.
        """
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver no records of these until ``resume`` or their next assignment."""
        ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver records of these again, without a gap."""
        ...

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Deliver a partition's records from ``offset`` on, which is committed and lies ahead."""
        ...

    def seek_to_beginning(self, source: TopicPartition) -> None:
        """Deliver a partition's records from the first one on."""
        ...

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Return the committed offset of each of ``partitions``, with its note. Blocks.

        Fast once a record of them was delivered. Raises PublishAborted (unknown so far).
        """
        ...

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return how many records of each assigned partition are not published, as last reported.

        Safe from any thread; asks no broker. Partitions without a known lag are left out.
        """
        ...

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the timestamp of each partition's oldest record delivered and not yet published.

        Unix milliseconds, as last reported. Partitions without such a record are left out.
        """
        ...

    def take_ends(self) -> Mapping[TopicPartition, int]:
        """Return partitions that are read and published to the end, with the offset to commit.

        After the last record there may be transaction markers, which others would count as lag.
        Each end is returned once. Asks no broker.
        """
        ...

    @property
    def unreachable_since(self) -> float | None:
        """When the last connection to a broker was found lost (``time.monotonic``), None if there
        is one. Safe from any thread."""
        ...

    def close(self) -> None:
        """Leave the group and free the client. Safe to call twice."""
        ...
