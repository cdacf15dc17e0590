"""What the loop tells whoever listens: logs now, metrics and the demo's screen as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.core.assignment import Finished
from worker.records.types import TopicPartition


class Listener(Protocol):
    """Told what happened, after it happened. Must not block and must not raise."""

    def published(self, batch: Sequence[Finished], seconds: float) -> None:
        """These records and their offsets are committed; it took so long."""
        ...

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """A batch was not committed and will be tried again."""
        ...

    def rebalanced(self, kind: str, partitions: Sequence[TopicPartition], dropped: int) -> None:
        """``kind`` is assigned, revoked or lost; ``dropped`` records will be done by others."""
        ...

    def backpressure(self, kind: str, records: int, size_bytes: int) -> None:
        """``kind`` is paused or resumed, at so many records and bytes held."""
        ...


class Silence:
    """A Listener that does nothing."""

    def published(self, batch: Sequence[Finished], seconds: float) -> None:
        """Ignore it."""

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """Ignore it."""

    def rebalanced(self, kind: str, partitions: Sequence[TopicPartition], dropped: int) -> None:
        """Ignore it."""

    def backpressure(self, kind: str, records: int, size_bytes: int) -> None:
        """Ignore it."""
