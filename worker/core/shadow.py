"""Shadow traffic: other adapters label a share of the records as well, for comparison.

Nobody acts on their labels, and their work never delays or fails a record's own result: a shadow's
label is published with the record's own if it is ready by then, and left out otherwise. Either is
counted.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
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
    """One record that a shadow labels. All but ``note_answer`` is for the loop's thread.

    ``result`` is there once ``close`` has found the answer; ``dropped`` says why there is none.
    """

    def __init__(self, adapter: ServingAdapter, fetched_at: float) -> None:
        self.adapter = adapter
        self.result: Classified | None = None
        self.dropped: ShadowDrop | None = None
        self._fetched_at = fetched_at
        self._submitted_at = fetched_at
        self._answered_at = fetched_at
        self._prepared: Prepared | None = None
        self._future: Future[Answer] | None = None

    def submit(
        self, record: Record, at: float, on_answer: Callable[[Future[Answer]], None]
    ) -> None:
        """Begin to label the record. What goes wrong is kept as ``dropped``."""
        try:
            self._prepared = self.adapter.labeller.prepare(record)
            self._submitted_at = at
            self._future = self.adapter.engine.submit(self._prepared.prompt_ids)
        except (MessageRejected, EngineDied):
            self.dropped = "failed"
            return
        self._future.add_done_callback(on_answer)

    def note_answer(self, at: float) -> None:
        """Note when the engine was done. From any thread."""
        self._answered_at = at

    def close(self) -> None:
        """Take the answer if it is there; give it up if not. Does not wait. Safe to call twice."""
        future, self._future = self._future, None
        if future is None:
            return
        if not future.done():
            future.cancel()
            self.dropped = "late"
            return
        assert self._prepared is not None
        timing = Timing(
            self._submitted_at - self._fetched_at, self._answered_at - self._submitted_at
        )
        try:
            answer = future.result(timeout=0)
            self.result = self.adapter.labeller.classify(self._prepared, answer, timing)
        except (MessageRejected, EngineDied, CancelledError):
            self.dropped = "failed"

    def drop(self, why: ShadowDrop) -> None:
        """Leave it out of whatever is published next."""
        self.close()
        if self.dropped is None:
            self.result, self.dropped = None, why


class ShadowTraffic:
    """Submits shadow requests, at most ``max_in_flight`` at a time."""

    def __init__(
        self, router: AdapterRouter, max_in_flight: int, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._answered: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self.in_flight = 0
        """Prompts that were not answered or given up yet, as of the last ``poll``."""

    def submit(self, record: Record) -> Sequence[ShadowRequest]:
        """Have the record labelled by each shadow that it is in the share of."""
        if not self._router.has_shadows:
            return ()
        return [self._submit(record, adapter) for adapter in self._router.choose_shadows(record)]

    def poll(self) -> None:
        """Count what the engines have answered or given up."""
        while not self._answered.empty():
            self._answered.get().in_engine -= 1
            self.in_flight -= 1

    def _submit(self, record: Record, adapter: ServingAdapter) -> ShadowRequest:
        self.poll()
        now = self._clock()
        request = ShadowRequest(adapter, now)
        if self.in_flight >= self._max_in_flight:
            request.dropped = "busy"
            return request
        self.in_flight += 1
        adapter.in_engine += 1
        request.submit(record, now, lambda _: self._note_answer(request))
        if request.dropped is not None:
            self.in_flight -= 1
            adapter.in_engine -= 1
        return request

    def _note_answer(self, request: ShadowRequest) -> None:
        request.note_answer(self._clock())
        self._answered.put(request.adapter)
