"""The messages of new items, fetched from the input topic and decoded as the worker does."""

from __future__ import annotations

import structlog

from desk.clock import Clock
from desk.core.near import band_keys
from desk.core.storable import storable
from desk.store import projects, texts
from desk.store.database import Database
from desk.stream.port import Place, Record, TextSource
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat, decode_value
from worker.contract.text import message_sha256

_BATCH = 300
_TIMEOUT_S = 20.0
_log = structlog.get_logger("desk.inbox")


class TextFetcher:
    """Fetches the texts that are wanted; one thread."""

    def __init__(
        self, database: Database, source: TextSource, layout: InputFormat, clock: Clock
    ) -> None:
        self._database = database
        self._source = source
        self._layout = layout
        self._clock = clock

    def run_once(self) -> int:
        """Fetch what is wanted, one batch at most; return how many items have their answer.

        Raises TryAgain, DeskStopped.
        """
        with self._database.read() as tx:
            wanted = texts.wanted(tx, _BATCH)
            known = projects.known_digests(tx)
        if not wanted:
            return 0
        places = {Place(each.topic, each.partition, each.offset): each for each in wanted}
        found = self._source.fetch(list(places), _TIMEOUT_S)
        counts = {"here": 0, "expired": 0, "unreadable": 0}
        with self._database.write() as tx:
            for place, record in found.items():
                each = places[place]
                read = self._read(each.item_id, record)
                if isinstance(read, texts.FoundText):
                    state = "open" if each.taxonomy_digest in known else "held"
                    texts.arrived(tx, read, self._clock(), state=state)  # type: ignore[arg-type]
                    counts["here"] += 1
                else:
                    texts.missing(tx, each.item_id, read)
                    counts[read] += 1
        _log.info("inbox.texts", **counts, left=len(wanted) - len(found))
        return len(found)

    def _read(self, item_id: int, record: Record | None) -> texts.FoundText | texts.Missing:
        if record is None:
            return "expired"
        try:
            message = decode_value(record.value, self._layout)
        except MessageRejected as error:
            _log.warning("inbox.unreadable", item=item_id, reason=error.reason)
            return "unreadable"
        text = storable(message.text)
        return texts.FoundText(
            item_id=item_id,
            text=text,
            message_id=message.message_id,
            message_sha256=message_sha256(message.text),
            band_keys=band_keys(text),
        )
