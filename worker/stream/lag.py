"""How far the worker is behind the end of its partitions, from what the client says of itself.

The client's statistics come by themselves, at an interval, so nobody waits for a broker to know.
The client's own figure for the lag is not used: it does not see offsets that are committed within
transactions.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from worker.records.types import NextOffset, Record, TopicPartition


class Lag:
    """Keeps the lag of the partitions that are assigned. ``read`` is safe from any thread.

    The lag is counted in offsets, from the next one to be committed to the last stable one (what
    ``read_committed`` may read), as of the last fetch: while a partition is paused the end is not
    looked at. Transaction markers in the input are offsets without a record; where the client has
    read to the end and everything it delivered is published, the lag is 0 in spite of them.
    """

    def __init__(self) -> None:
        self._delivered: dict[TopicPartition, int] = {}
        self._published: dict[TopicPartition, int] = {}
        self._held: set[TopicPartition] = set()
        self._lag: Mapping[TopicPartition, int] = {}

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
        self._lag = {source: lag for source, lag in self._lag.items() if source in self._held}

    def delivered(self, records: Iterable[Record]) -> None:
        """Take note of records handed out, in order."""
        for record in records:
            self._delivered[record.source] = record.offset + 1

    def published(self, offsets: Iterable[NextOffset]) -> None:
        """Take note of what was committed."""
        for next_offset in offsets:
            self._published[next_offset.source] = next_offset.offset

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
