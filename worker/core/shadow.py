"""A second adapter that labels a share of the records too, for show: nobody acts on it.

Its work never delays or fails a record's own result: it is taken along when it is ready by the
time that one is published, and left out otherwise, and counted either way.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Literal

from worker.core.adapter_router import AdapterRouter
from worker.core.labeller import Prepared
from worker.core.serving_adapter import ServingAdapter
from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected
from worker.records.types import Classified, Record, Timing

ShadowDrop = Literal["busy", "late", "failed", "no_label", "not_published"]
"""Why a shadow's label was left out: too many in flight; not answered in time; no answer or none
that is a label; the record itself got no label; the batch was published at another try."""


class ShadowRequest:
    """One record that a shadow labels. All but ``note`` is for the loop's thread.

    ``result`` is there once ``close`` has found the answer; ``dropped`` says why there is none.
    """

    def __init__(self, served: ServingAdapter, fetched_at: float) -> None:
        self.served = served
        self.result: Classified | None = None
        self.dropped: ShadowDrop | None = None
        self._fetched_at = fetched_at
        self._submitted_at = fetched_at
        self._answered_at = fetched_at
        self._prepared: Prepared | None = None
        self._future: Future[Answer] | None = None

    def start(self, record: Record, at: float, note: Callable[[Future[Answer]], None]) -> None:
        """Submit it. What goes wrong is kept as ``dropped``."""
        try:
            self._prepared = self.served.labeller.prepare(record)
            self._submitted_at = at
            self._future = self.served.engine.submit(self._prepared.prompt_ids)
        except (MessageRejected, EngineDied):
            self.dropped = "failed"
            return
        self._future.add_done_callback(note)

    def answered(self, at: float) -> None:
        """Note when the engine was done. From any thread."""
        self._answered_at = at

    def close(self) -> None:
        """Take the answer if it is there; give it up if not. Does not wait. Once is enough."""
        future, self._future = self._future, None
        if future is None:
            return
        if not future.done():
            future.cancel()
            self.dropped = "late"
            return
        try:
            labeller = self.served.labeller
            decision = labeller.decide(future.result(timeout=0))
        except (MessageRejected, EngineDied, CancelledError):
            self.dropped = "failed"
            return
        assert self._prepared is not None
        self.result = Classified(
            decision,
            self._prepared.message_id,
            self._prepared.truncated,
            labeller.review_reasons(decision),
            Timing(self._submitted_at - self._fetched_at, self._answered_at - self._submitted_at),
        )

    def drop(self, why: ShadowDrop) -> None:
        """Leave it out of whatever is published next."""
        self.close()
        if self.dropped is None:
            self.result, self.dropped = None, why


class ShadowTraffic:
    """Begins shadow work, at most ``max_in_flight`` at a time."""

    def __init__(
        self, router: AdapterRouter, max_in_flight: int, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._returned: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self._in_flight = 0

    def begin(self, record: Record) -> ShadowRequest | None:
        """Have the shadow label this record too, if it is in its share."""
        served = self._router.shadow_of(record)
        if served is None:
            return None
        self.take_back()
        now = self._clock()
        work = ShadowRequest(served, now)
        if self._in_flight >= self._max_in_flight:
            work.dropped = "busy"
            return work
        self._in_flight += 1
        served.in_engine += 1
        work.start(record, now, lambda _: self._note(work))
        if work.dropped is not None:
            self._in_flight -= 1
            served.in_engine -= 1
        return work

    def take_back(self) -> None:
        """Count what the engine has answered or given up."""
        while not self._returned.empty():
            self._returned.get().in_engine -= 1
            self._in_flight -= 1

    def _note(self, work: ShadowRequest) -> None:
        work.answered(self._clock())
        self._returned.put(work.served)
