"""Which input records are labelled again, by the results that they have. Pure.

Two bits for each result of each run, whatever the number of records.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from worker.contract.records import Replay, supersedes
from worker.offline.offset_set import OffsetSet
from worker.offline.results import ReadResult
from worker.records.types import TopicPartition


@dataclass(frozen=True, slots=True)
class Criteria:
    """What the result in force must be; each narrows the choice.

    ``dead_letters``: it is one. ``review``: its label is for review. ``reasons``: a dead letter
    for one of these. ``labels``: one of these. ``made_by``: first digits of its adapter's digest.
    """

    dead_letters: bool = False
    review: bool = False
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    made_by: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether any record fits, also one without a result."""
        return self == Criteria()

    def fit(self, result: ReadResult) -> bool:
        """Tell whether a result is one of these."""
        if (self.dead_letters or self.reasons) and result.reason is None:
            return False
        if self.reasons and result.reason not in self.reasons:
            return False
        if self.review and not result.in_review:
            return False
        if self.labels and result.label not in self.labels:
            return False
        return self.made_by is None or result.adapter_digest.startswith(self.made_by)


class Selector:
    """Takes all results in, and gives the records whose result in force fits.

    The result in force is that of the replay that began last. ``replay_id`` is the replay that is
    being chosen for: its own results, from before it was broken off, do not count.
    """

    def __init__(self, criteria: Criteria, replay_id: str) -> None:
        self._criteria = criteria
        self._own = replay_id
        self._runs: dict[str | None, Replay | None] = {None: None}
        self._all: defaultdict[tuple[str | None, TopicPartition], OffsetSet] = defaultdict(
            OffsetSet
        )
        self._fitting: defaultdict[tuple[str | None, TopicPartition], OffsetSet] = defaultdict(
            OffsetSet
        )

    def add(self, result: ReadResult) -> None:
        """Take a result in, in any order."""
        run = None if result.replay is None else result.replay.id
        if run == self._own or result.offset < 0:
            return
        known = self._runs.setdefault(run, result.replay)
        if supersedes(result.replay, known):
            self._runs[run] = result.replay
        self._all[run, result.source].add(result.offset)
        if self._criteria.fit(result):
            self._fitting[run, result.source].add(result.offset)

    def selected(self, source: TopicPartition) -> OffsetSet:
        """Return the offsets of an input partition that are labelled again."""
        found = OffsetSet()
        for run, replay in self._runs.items():
            fitting = self._fitting[run, source]
            for other, later in self._runs.items():
                if supersedes(later, replay):
                    fitting = fitting.without(self._all[other, source])
            found.update(fitting)
        return found
