"""The outbox's loop: each correction reaches Kafka exactly once, whatever is killed when.

Each turn: rows that are due get sequence numbers in one transaction of the database; those that
are not known to be published are written to Kafka in order, with the last number as a mark, in one
transaction there; then the database is told. What a kill leaves in doubt is between the last two,
and the mark settles it: after a start, and after any error, all up to the mark are in Kafka and
nothing beyond it is, because starting ends and fences whoever wrote under this name before.
"""

from __future__ import annotations

import structlog

from desk.clock import Clock
from desk.store import outbox
from desk.store.database import Database
from desk.stream.port import CorrectionSink, Outgoing

_log = structlog.get_logger("desk.outbox")

_SKEW_MS = 3_600_000
"""How far the clocks of a broker and of a database's client may be apart."""


class OutboxPublisher:
    """Publishes what is in the outbox; one thread."""

    def __init__(
        self, database: Database, sink: CorrectionSink, clock: Clock, *, batch: int = 200
    ) -> None:
        self._database = database
        self._sink = sink
        self._clock = clock
        self._batch = batch
        self._started = False

    def run_once(self) -> int:
        """Publish what is due, one batch at most; return how many.

        Raises TryAgain: the next call settles what became of this one. Raises DeskStopped.
        """
        if not self._started:
            self._settle()
        self._started = False  # until this turn has come to its end
        with self._database.write() as tx:
            outbox.give_sequence(tx, self._clock(), self._batch)
            rows = outbox.pending(tx, self._batch)
        if rows:
            self._sink.publish([Outgoing(row.sequence, row.key, row.value) for row in rows])
            with self._database.write() as tx:
                outbox.published(tx, rows[-1].sequence, self._clock())
            _log.info("outbox.published", records=len(rows), sequence=rows[-1].sequence)
        self._started = True
        return len(rows)

    def stand_back(self) -> None:
        """Somebody else publishes now: begin anew when it is this one's turn again."""
        self._started = False

    def _settle(self) -> None:
        """Begin, and note what was published without our knowing."""
        mark = self._sink.start()
        with self._database.read() as tx:
            doubt = outbox.first_in_doubt(tx)
        if mark is None and doubt is not None:
            # Kafka forgets a group's offsets some days after their last commit, or with the topic.
            mark = self._sink.last_written(doubt[1] - _SKEW_MS)
        if mark is not None:
            with self._database.write() as tx:
                settled = outbox.published(tx, mark, self._clock())
            if settled:
                _log.info("outbox.settled", records=settled, sequence=mark)
        self._started = True
