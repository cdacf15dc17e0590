"""The inbox: each result becomes exactly one item, with its message from the input topic.

Offsets are stored in the database, in the transaction that adds the items, and not in Kafka: a
crash between two commits would add items twice or lose them. If another process has moved an
offset, the whole transaction is rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from desk.clock import Clock
from desk.core.items import is_drawn
from desk.core.texts import band_keys, message_text
from desk.store import items, offsets, projects
from desk.store.database import Database
from desk.store.items import NewItem
from desk.stream.port import Place, Record, ResultSource, TextSource
from worker.contract.errors import MessageRejected, RecordRefused
from worker.contract.records import InputFormat, OutputRecord, decode_value, read_output
from worker.contract.text import message_sha256
from worker.contract.timestamps import parse_rfc3339

_log = structlog.get_logger("desk.inbox")

DAY_MS = 86_400_000

# The longest time until new partitions are read, and the greatest age of the lag on the pages.
_LOOK_AROUND_MS = 15_000

_BATCH = 300

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """Shares to draw, in [0, 1], and the seed, which is the installation's name."""

    seed: str
    audit_share: float
    double_share: float
    audit_double_share: float


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
        """Store one batch of results; return the number of records read.

        Raises TryAgain, after which the next call starts from the offsets in the database, and
        DeskStopped.
        """
        now_ms = self._clock()
        if self._looked_ms is None or now_ms - self._looked_ms > _LOOK_AROUND_MS:
            self._look_around(now_ms)
        records = [
            record
            for record in self._source.poll(self._batch, timeout_s)
            if record.place.offset >= self._next[record.place.topic, record.place.partition]
        ]
        # None until this call succeeds: after an error, positions come from the database again.
        looked, self._looked_ms = self._looked_ms, None
        moved = self._take(records) if records else self._pass_ends()
        self._next |= moved
        self._looked_ms = looked
        return len(records)

    def reset(self) -> None:
        """Forget all positions: another replica may move them."""
        self._looked_ms = None
        self._next = {}
        self._source.assign({})

    def _look_around(self, now_ms: int) -> None:
        """Find partitions, store where they end, and seek to the offsets in the database."""
        logs = {topic: self._source.logs(topic) for topic in self._topics}
        ends = [
            (topic, number, log.end)
            for topic, found in logs.items()
            for number, log in found.items()
        ]
        with self._database.write() as tx:
            known = {(each.topic, each.partition) for each in offsets.progress(tx)}
            for topic, found in logs.items():
                # A new partition of a known topic is read from its beginning, even with "latest":
                # its first records came after the desk started to read the topic.
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
        """Move past offsets without records (transaction markers) at the end of a log. Otherwise
        the lag would never become 0."""
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

    def _take(self, records: Sequence[Record]) -> dict[tuple[str, int], int]:
        """Store a batch: items, traffic counts, and offsets. Return the offsets."""
        now_ms = self._clock()
        last: dict[tuple[str, int], Record] = {}
        refused: Counter[tuple[str, int]] = Counter()
        new: list[NewItem] = []
        traffic: Counter[items.Traffic] = Counter()
        # Before the transaction: on SQLite reviewers wait for it.
        for record in sorted(records, key=lambda record: record.place):
            at = record.place.topic, record.place.partition
            last[at] = record
            try:
                item, counted = see(record, self._sampling)
            except RecordRefused as error:
                refused[at] += 1
                _log.warning("inbox.refused", topic=at[0], problem=error.problem)
                continue
            if item is not None:
                new.append(item)
            if counted is not None:
                traffic[counted] += 1
        moved = {at: record.place.offset + 1 for at, record in last.items()}
        with self._database.write() as tx:
            for (topic, number), record in last.items():
                offsets.advance(
                    tx,
                    topic,
                    number,
                    from_offset=self._next[topic, number],
                    to_offset=moved[topic, number],
                    now_ms=now_ms,
                    record_ms=record.timestamp_ms,
                    refused=refused[topic, number],
                )
            added = items.add(tx, new, now_ms)
            items.count_traffic(tx, traffic)
        if added["new"] or added["changed"]:
            _log.info("inbox.items", **added)
        return moved


def see(record: Record, sampling: Sampling) -> tuple[NewItem | None, items.Traffic | None]:
    """Return a result's item, None if it needs no review, and what it counts as in the traffic,
    None for a replay's. Raises RecordRefused for a record that is not a result.

    The audit draw depends on the id alone, so that the sample is independent of the model.
    """
    output = read_output(record.value)
    labelled_ms = _ms(output.labelled_at)
    audit = is_drawn("audit", sampling.seed, output.id, sampling.audit_share)
    item = None
    if audit or output.review.needed:
        item = _item(record, output, sampling, audit=audit, labelled_ms=labelled_ms)
    if output.replay is not None:
        return item, None
    day = labelled_ms // DAY_MS
    return item, (day, output.label, output.adapter.digest, output.review.needed)


def _item(
    record: Record, output: OutputRecord, sampling: Sampling, *, audit: bool, labelled_ms: int
) -> NewItem:
    share = sampling.audit_double_share if audit else sampling.double_share
    source, scope = output.source, output.out_of_scope
    return NewItem(
        result_id=output.id,
        source_topic=source.topic,
        source_partition=source.partition,
        source_offset=source.offset,
        source_ms=_ms(source.timestamp) if source.timestamp is not None else None,
        record_key=record.key,
        message_id=output.message_id,
        label=output.label,
        confidence=output.confidence,
        scores=output.scores,
        off_label_mass=output.off_label_mass,
        reasons=output.review.reasons,
        truncated=output.truncated,
        adapter_name=output.adapter.name,
        adapter_digest=output.adapter.digest,
        taxonomy_digest=output.taxonomy.digest,
        labelled_ms=labelled_ms,
        origin="audit" if audit else "review",
        sample_share=sampling.audit_share if audit else None,
        opinions_wanted=2 if is_drawn("double", sampling.seed, output.id, share) else 1,
        out_of_scope_method=scope.method if scope is not None else None,
        out_of_scope_score=scope.score if scope is not None else None,
        replay=output.replay,
    )


def _ms(time: str) -> int:
    return int(parse_rfc3339(time).timestamp() * 1000)


class TextFetcher:
    """Fetches messages for items that lack one; one thread."""

    def __init__(
        self, database: Database, source: TextSource, layout: InputFormat, clock: Clock
    ) -> None:
        self._database = database
        self._source = source
        self._layout = layout
        self._clock = clock

    def run_once(self) -> int:
        """Fetch one batch of messages; return the number of items that are settled.

        Raises TryAgain, DeskStopped.
        """
        with self._database.read() as tx:
            wanted = items.texts_wanted(tx, _BATCH)
            known = projects.known_digests(tx)
        if not wanted:
            return 0
        places = {Place(*place): (item_id, digest) for item_id, digest, place in wanted}
        found = self._source.fetch(list(places), _TIMEOUT_S)
        here: list[items.FoundText] = []
        missing: dict[int, items.Missing] = {}
        # Before the transaction: on SQLite reviewers wait for it.
        for place, record in found.items():
            item_id, digest = places[place]
            read = self._read(item_id, record, "open" if digest in known else "held")
            if isinstance(read, items.FoundText):
                here.append(read)
            else:
                missing[item_id] = read
        with self._database.write() as tx:
            items.texts_arrived(tx, here, self._clock())
            for item_id, why in missing.items():
                items.text_missing(tx, item_id, why)
        counts = {"here": len(here), "expired": 0, "unreadable": 0} | Counter(missing.values())
        _log.info("inbox.texts", **counts, left=len(wanted) - len(found))
        return len(found)

    def _read(
        self, item_id: int, record: Record | None, state: Literal["open", "held"]
    ) -> items.FoundText | items.Missing:
        if record is None:
            return "expired"
        try:
            message = decode_value(record.value, self._layout)
        except MessageRejected as error:
            _log.warning("inbox.unreadable", item=item_id, reason=error.reason)
            return "unreadable"
        text = message_text(message.text)
        return items.FoundText(
            item_id=item_id,
            text=text,
            message_id=message.message_id,
            message_sha256=message_sha256(message.text),
            band_keys=band_keys(text),
            state=state,
        )
