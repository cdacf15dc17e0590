"""Publishing samples and showing what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from worker.demo.client import Publisher, Seen, Watcher
from worker.demo.program import ProgramFailed
from worker.demo.samples import Sample
from worker.demo.screen import Screen

_LIVE_WINDOW = 4
_STALL_S = 120.0


class Streaming:
    """Two ways to publish: a few at a time, which shows latency, or all at once, throughput.

    ``check`` is called while waiting and raises when the worker has ended.
    """

    def __init__(
        self, screen: Screen, publisher: Publisher, watcher: Watcher, check: Callable[[], None]
    ) -> None:
        self._screen = screen
        self._publisher = publisher
        self._watcher = watcher
        self._check = check
        self._waiting: dict[str, Sample] = {}

    def live(self, samples: Sequence[Sample]) -> list[float]:
        """Publish with a few under way at a time; return each one's seconds, end to end."""
        latencies: list[float] = []
        left = list(reversed(samples))
        while left or self._waiting:
            while left and len(self._waiting) < _LIVE_WINDOW:
                self._publish(left.pop())
            latencies.extend(self._take())
        return latencies

    def burst(self, samples: Sequence[Sample]) -> float:
        """Publish all at once; return the seconds until the last result was seen."""
        started = time.monotonic()
        for one in samples:
            self._publish(one)
        while self._waiting:
            self._take()
        return time.monotonic() - started

    def show(self, seen: Seen) -> float:
        """Show one result; return its latency in seconds."""
        sample = self._waiting.pop(seen.message_id, None)
        latency_s = max(0.0, seen.seen_at - seen.published_at)
        self._screen.landed(seen, sample, latency_s)
        return latency_s

    def _publish(self, sample: Sample) -> None:
        self._waiting[sample.id] = sample
        self._publisher.publish(sample.id, sample.message)

    def _take(self) -> list[float]:
        until = time.monotonic() + _STALL_S
        while time.monotonic() < until:
            self._check()
            if found := [self.show(seen) for seen in self._watcher.poll(0.2)]:
                return found
        raise ProgramFailed(f"no result within {_STALL_S:.0f} s")
