"""How far the worker is behind the end of its partitions, from what the client says of itself.

The client's statistics come by themselves, at an interval, so nobody waits for a broker to know.
The client's own figure for the lag is not used: it does not see offsets that are committed within
transactions.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from worker.records.types import NextOffset, Record, TopicPartition

_NOTHING: deque[tuple[int, int | None]] = deque()


class Lag:
    """Keeps the lag of the partitions that are assigned. ``read`` is safe from any thread.

    The lag is counted in offsets, from the next one to be committed to the last stable one (what
    ``read_committed`` may read), as of the last fetch: while a partition is paused the end is not
    looked at. Transaction markers in the input are offsets without a record; where the client has
    read to the end and everything it delivered is published, the lag is 0 in spite of them.

    The lag in time is told by the timestamp of the oldest record that was delivered and is not
    published. What the client has not handed out is younger, or of unknown age.
    """

    def __init__(self) -> None:
        self._delivered: dict[TopicPartition, int] = {}
        self._published: dict[TopicPartition, int] = {}
        self._held: set[TopicPartition] = set()
        self._lag: Mapping[TopicPartition, int] = {}
        # Offset and timestamp of what is delivered and not published, in order.
        self._waiting: dict[TopicPartition, deque[tuple[int, int | None]]] = {}
        self._oldest_ms: Mapping[TopicPartition, int] = {}

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the oldest waiting record's timestamp (Unix milliseconds) of each partition that
        has one with a timestamp. As of the last statistics, and safe from any thread."""
        return self._oldest_ms

    def read(self) -> Mapping[TopicPartition, int]:
        """Return the lag of each partition it is known of."""
        return self._lag

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Track these partitions."""
        self._held.update(partitions)

    def ended(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these partitions."""
        self._held.difference_update(partitions)
        for source in partitions:
            self._delivered.pop(source, None)
            self._published.pop(source, None)
            self._waiting.pop(source, None)
        self._lag = {source: lag for source, lag in self._lag.items() if source in self._held}
        self._oldest_ms = {at: ms for at, ms in self._oldest_ms.items() if at in self._held}

    def delivered(self, records: Iterable[Record]) -> None:
        """Take note of records handed out, in order."""
        for record in records:
            source, offset = record.source, record.offset
            self._delivered[source] = offset + 1
            if offset < self._published.get(source, 0):
                continue  # delivered once more: its result is published
            waiting = self._waiting.get(source)
            if waiting is None:
                waiting = self._waiting[source] = deque()
            while waiting and waiting[-1][0] >= offset:  # after a rewind
                waiting.pop()
            waiting.append((offset, record.timestamp_ms))

    def published(self, offsets: Iterable[NextOffset]) -> None:
        """Take note of what was committed."""
        for next_offset in offsets:
            self._published[next_offset.source] = next_offset.offset
            waiting = self._waiting.get(next_offset.source, _NOTHING)
            while waiting and waiting[0][0] < next_offset.offset:
                waiting.popleft()

    def update(self, statistics: Mapping[str, Any], paused: Collection[TopicPartition]) -> None:
        """Work out each lag anew from the client's statistics (librdkafka's STATISTICS.md).

        ``paused`` partitions are not fetched: what the client had read ahead of them is gone.
        """
        found = {}
        for topic in statistics["topics"].values():
            for facts in topic["partitions"].values():
                source = TopicPartition(topic["topic"], facts["partition"])
                if (
                    source in self._held
                    and (lag := self._of(source, facts, source in paused)) is not None
                ):
                    found[source] = lag
        self._lag = found
        self._oldest_ms = {
            source: oldest
            for source, waiting in self._waiting.items()
            if waiting and (oldest := waiting[0][1]) is not None
        }

    def _of(self, source: TopicPartition, facts: Mapping[str, Any], paused: bool) -> int | None:
        end = facts["ls_offset"]
        # Nothing published since it was assigned: what the group had committed, or the beginning.
        known = (self._published.get(source, -1), facts["committed_offset"], facts["lo_offset"])
        start = next((offset for offset in known if offset >= 0), None)
        if end < 0 or start is None:
            return None
        done = self._delivered.get(source, 0) <= start and not paused
        if done and facts["next_offset"] >= end and not facts["fetchq_cnt"]:
            return 0
        return max(0, int(end) - int(start))


def read_statistics(text: str) -> Mapping[str, Any]:
    """Parse what the client hands to its ``stats_cb``."""
    found: Mapping[str, Any] = json.loads(text)
    return found


def has_coordinator(statistics: Mapping[str, Any]) -> bool:
    """Tell whether the client talks to its group's coordinator."""
    return bool(statistics.get("cgrp", {}).get("state") == "up")
