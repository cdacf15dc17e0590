"""The partitions this worker holds, and the records of each on their way through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from worker.core.labeller import Prepared
from worker.core.serving_adapter import ServingAdapter
from worker.core.shadow import ShadowRequest
from worker.core.watermark import Watermark
from worker.engine.port import Answer
from worker.records.types import Outcome, Record, TopicPartition


@dataclass(frozen=True, slots=True)
class CompletedRecord:
    """A record, where it ended and whose decision that was.

    ``bare``: its dead letter goes without the payload. ``shadow`` is what another adapter makes
    of it, if one does. Times are monotonic seconds: when it was fetched, and when its outcome
    was known.
    """

    record: Record
    outcome: Outcome
    served: ServingAdapter
    bare: bool = False
    fetched_at: float = 0.0
    finished_at: float = 0.0
    shadow: ShadowRequest | None = None


@dataclass(slots=True, eq=False)
class PartitionState:
    """One assignment of one partition. Once ``gone``, whatever comes back for it is dropped."""

    source: TopicPartition
    watermark: Watermark[CompletedRecord] = field(default_factory=Watermark)
    size_bytes: int = 0
    gone: bool = False


@dataclass(slots=True, eq=False)
class InFlightRecord:
    """One record on its way through the engine. Times are monotonic seconds.

    ``served`` is the adapter that it was accepted with. It has another one only when that one's
    engine has died, and then all of it is done again.
    """

    record: Record
    held: PartitionState
    served: ServingAdapter
    fetched_at: float
    deadline: float
    prepared: Prepared | None = None
    future: Future[Answer] | None = None
    shadow: ShadowRequest | None = None
    submitted_at: float = 0.0
    attempts: int = 0
    finished: bool = False


class Assignment:
    """Partitions held now. A partition that comes back begins with another ``PartitionState``."""

    def __init__(self) -> None:
        self._held: dict[TopicPartition, PartitionState] = {}

    def __contains__(self, source: TopicPartition) -> bool:
        """Tell whether a partition is held."""
        return source in self._held

    def __iter__(self) -> Iterator[PartitionState]:
        """Go through what is held, in order of assignment."""
        return iter(tuple(self._held.values()))

    @property
    def partitions(self) -> Sequence[TopicPartition]:
        """The partitions held now."""
        return tuple(self._held)

    @property
    def ready(self) -> int:
        """Records that are finished and may be published, over all partitions."""
        return sum(held.watermark.ready for held in self._held.values())

    def get(self, source: TopicPartition) -> PartitionState | None:
        """Return what is held of a partition."""
        return self._held.get(source)

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Hold these partitions, each from a clean start."""
        for source in partitions:
            self._held[source] = PartitionState(source)

    def end(self, partitions: Iterable[TopicPartition]) -> list[PartitionState]:
        """Hold these partitions no more; return what was held of them, marked as gone."""
        ended = [self._held.pop(source) for source in partitions if source in self._held]
        for held in ended:
            held.gone = True
        return ended
