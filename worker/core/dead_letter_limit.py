"""Stop a worker whose feed is broken: too many of its records end as dead letters."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

from worker.core.events import LoopEvent, Published
from worker.errors import FeedBroken
from worker.records.types import Postponed, Rejected

WINDOW = 1000
"""A broken feed fills it within seconds, and it is large enough to rule out chance at every ratio
that can be set."""

FALSE_STOP = 1e-9
"""The probability that a feed which is exactly at the limit exceeds it in one window."""


def stops_at(ratio: float, window: int = WINDOW, false_stop: float = FALSE_STOP) -> int:
    """Return the smallest number of dead letters in a window that chance does not explain.

    By Chernoff's bound: of n independent records, each a dead letter with probability p, a share q
    above p occurs with a probability of at most exp(-n KL(q, p)). A number above ``window`` means
    never.
    """
    needed = -math.log(false_stop) / window
    count = math.floor(ratio * window) + 1
    while count <= window and _divergence(count / window, ratio) < needed:
        count += 1
    return count


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two Bernoulli shares, in nats."""
    dead = share * math.log(share / expected)
    return dead + ((1 - share) * math.log((1 - share) / (1 - expected)) if share < 1 else 0.0)


class DeadLetterLimit:
    """A listener that counts committed records and calls ``stop`` once, when ``ratio`` is exceeded.

    The loop then drains: records in flight are finished and published first.
    """

    def __init__(self, ratio: float, window: int = WINDOW, false_stop: float = FALSE_STOP) -> None:
        self._ratio = ratio
        self._window = window
        self._level = stops_at(ratio, window, false_stop)
        self._recent: deque[str | None] = deque()
        self._dead: Counter[str] = Counter()
        self._verdict: str | None = None
        self.stop: Callable[[], None] = lambda: None
        """Set once the loop exists, which this object listens to. Must not block."""

    def check(self) -> None:
        """Raise FeedBroken, with the reasons of the dead letters, if the limit was exceeded."""
        if self._verdict is not None:
            raise FeedBroken(self._verdict)

    def __call__(self, event: LoopEvent) -> None:
        """Count what was published, record by record."""
        if not isinstance(event, Published):
            return
        for completed in event.batch:
            outcome = completed.outcome
            if isinstance(outcome, Postponed):
                continue  # it is tried again, so it is not a dead letter yet
            reason = outcome.reason if isinstance(outcome, Rejected) else None
            self._recent.append(reason)
            if reason is not None:
                self._dead[reason] += 1
            if len(self._recent) > self._window:
                oldest = self._recent.popleft()
                if oldest is not None:
                    self._dead[oldest] -= 1
            if reason is not None and self._verdict is None:
                self._judge()

    def _judge(self) -> None:
        dead = self._dead.total()
        if dead < self._level:
            return
        reasons = ", ".join(f"{reason} {count}" for reason, count in self._dead.most_common(3))
        self._verdict = (
            f"{dead} of the last {len(self._recent)} records are dead letters ({reasons}), more "
            f"than loop.max_dead_letter_ratio of {self._ratio:g} allows. Fix the feed, or "
            "records.format and records.text_fields, and restart the worker. Nothing is lost: the "
            "dead letters can be replayed"
        )
        self.stop()
