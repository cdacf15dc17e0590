"""The inbox's loop: results become items, exactly one for each id, however often it starts again.

Offsets are kept in the database and moved in the transaction that adds the items. A transaction
that finds them moved by somebody else is given up whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import structlog

from desk.clock import Clock
from desk.inbox.results import Sampling, Seen, see
from desk.store import items, offsets
from desk.store.database import Database, Tx
from desk.stream.port import Record, ResultSource
from worker.contract.errors import RecordRefused

_log = structlog.get_logger("desk.inbox")

_LOOK_AROUND_MS = 15_000


class InboxReader:
    """Reads results into the database; one thread."""

    def __init__(
        self,
        database: Database,
        source: ResultSource,
        topics: Sequence[str],
        sampling: Sampling,
        clock: Clock,
        *,
        from_end: bool = False,
        batch: int = 500,
    ) -> None:
        self._database = database
        self._source = source
        self._topics = tuple(topics)
        self._sampling = sampling
        self._clock = clock
        self._from_end = from_end
        self._batch = batch
        self._next: dict[tuple[str, int], int] = {}
        self._looked_ms: int | None = None

    def run_once(self, timeout_s: float = 0.5) -> int:
        """Take what came, one batch at most; return how many records were read.

        Raises TryAgain: the next call begins from what the database knows. Raises DeskStopped.
        """
        now_ms = self._clock()
        if self._looked_ms is None or now_ms - self._looked_ms > _LOOK_AROUND_MS:
            self._look_around(now_ms)
        records = [
            record
            for record in self._source.poll(self._batch, timeout_s)
            if record.place.offset >= self._next[record.place.topic, record.place.partition]
        ]
        looked, self._looked_ms = self._looked_ms, None  # until this turn has come to its end
        if records:
            with self._database.write() as tx:
                moved = self._take(tx, records)
        else:
            moved = self._pass_ends()
        self._next |= moved
        self._looked_ms = looked
        return len(records)

    def stand_back(self) -> None:
        """Somebody else reads now: begin anew when it is this one's turn again."""
        self._looked_ms = None
        self._next = {}
        self._source.assign({})

    def _look_around(self, now_ms: int) -> None:
        """Find partitions, note where logs end, and read from where the database says."""
        logs = {topic: self._source.logs(topic) for topic in self._topics}
        ends = [
            (topic, number, log.end)
            for topic, found in logs.items()
            for number, log in found.items()
        ]
        with self._database.write() as tx:
            known = {(each.topic, each.partition) for each in offsets.progress(tx)}
            for topic, found in logs.items():
                # A partition that is new to a topic that is known is read from its beginning.
                at_end = self._from_end and not any(name == topic for name, _ in known)
                starts = {n: log.end if at_end else log.start for n, log in found.items()}
                offsets.begin(tx, topic, starts, now_ms)
            offsets.note_ends(tx, ends, now_ms)
            positions = {
                (each.topic, each.partition): each.next_offset
                for each in offsets.progress(tx)
                if each.topic in logs and each.partition in logs[each.topic]
            }
        for (topic, number), position in positions.items():
            start = logs[topic][number].start
            if position < start:
                _log.warning(
                    "inbox.expired", topic=topic, partition=number, records=start - position
                )
        if positions != self._next:
            self._source.assign(positions)
            self._next = positions
        self._looked_ms = now_ms

    def _pass_ends(self) -> dict[tuple[str, int], int]:
        """Go on behind what is no record, where all records before it were taken."""
        met = self._source.ends_met()
        ends = {at: end for at, end in met.items() if end > self._next[at]}
        if ends:
            now_ms = self._clock()
            with self._database.write() as tx:
                for (topic, number), end in ends.items():
                    offsets.advance(
                        tx,
                        topic,
                        number,
                        from_offset=self._next[topic, number],
                        to_offset=end,
                        now_ms=now_ms,
                    )
        return ends

    def _take(self, tx: Tx, records: Sequence[Record]) -> dict[tuple[str, int], int]:
        """Keep a batch: items, what the traffic was, how far it goes."""
        now_ms = self._clock()
        moved: dict[tuple[str, int], int] = {}
        seen: list[Seen] = []
        by_partition = sorted(records, key=lambda record: record.place)
        for (topic, number), group in groupby(
            by_partition, key=lambda record: (record.place.topic, record.place.partition)
        ):
            some = list(group)
            refused = 0
            for record in some:
                try:
                    seen.append(see(record, self._sampling))
                except RecordRefused as error:
                    refused += 1
                    _log.warning("inbox.refused", topic=topic, problem=error.problem)
            moved[topic, number] = some[-1].place.offset + 1
            offsets.advance(
                tx,
                topic,
                number,
                from_offset=self._next[topic, number],
                to_offset=moved[topic, number],
                now_ms=now_ms,
                record_ms=some[-1].timestamp_ms,
                refused=refused,
            )
        added = items.add(tx, [each.item for each in seen if each.item is not None], now_ms)
        first = (each for each in seen if each.first_run)
        items.count_traffic(
            tx,
            Counter((each.day, each.label, each.adapter_digest, each.doubtful) for each in first),
        )
        if added.new or added.changed:
            _log.info("inbox.items", new=added.new, changed=added.changed, known=added.known)
        return moved
