"""Stops a worker whose feed is broken: too many of its records end as dead letters."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from worker.core.events import LoopEvent, Published
from worker.errors import FeedBroken
from worker.records.types import Postponed, Rejected


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """Of the last ``window`` records no more than ``ratio`` may be dead letters, but for chance: a
    feed that is just at the limit is over it in a given window with at most ``false_stop``."""

    ratio: float
    # Some seconds of a feed that is broken, and enough to tell it from chance at every ratio that
    # can be set.
    window: int = 1000
    false_stop: float = 1e-9


def stops_at(ratio: float, window: int, false_stop: float) -> int:
    """Return the least number of dead letters in a window that chance does not explain.

    By Chernoff's bound: of n independent records, each a dead letter with probability p, a share q
    above p is reached with a probability of at most exp(-n KL(q, p)). More than ``window``: never.
    """
    needed = -math.log(false_stop) / window
    count = math.floor(ratio * window) + 1
    while count <= window and _divergence(count / window, ratio) < needed:
        count += 1
    return count


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two shares, in nats."""
    dead = share * math.log(share / expected)
    return dead + ((1 - share) * math.log((1 - share) / (1 - expected)) if share < 1 else 0.0)


class DeadLetterLimit:
    """A listener that counts what is committed, and asks for the end once.

    The end is the gentle one: what is in flight is finished and written first.
    """

    def __init__(self, policy: LimitPolicy) -> None:
        self._policy = policy
        self._level = stops_at(policy.ratio, policy.window, policy.false_stop)
        self._recent: deque[str | None] = deque()
        self._dead: Counter[str] = Counter()
        self._stop: Callable[[], None] = _nothing
        self._verdict: str | None = None

    def when_exceeded(self, stop: Callable[[], None]) -> None:
        """Call this then. It must not block."""
        self._stop = stop

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
                continue  # it has not ended yet
            reason = outcome.reason if isinstance(outcome, Rejected) else None
            self._recent.append(reason)
            if reason is not None:
                self._dead[reason] += 1
            if len(self._recent) > self._policy.window:
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
            f"than loop.max_dead_letter_ratio of {self._policy.ratio:g} allows: fix the feed or "
            "records.format and records.text_fields, then start again; nothing is lost, and the "
            "dead letters can be replayed"
        )
        self._stop()


def _nothing() -> None:
    """Before there is a loop to stop."""
