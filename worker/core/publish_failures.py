"""Publishes that failed in a row: how long to wait before the next, and when to give up."""

from __future__ import annotations

from collections.abc import Callable

from worker.core.events import KafkaReachable, KafkaUnreachable, Listener, PublishFailed
from worker.core.loop_policy import LoopPolicy
from worker.core.outage import Outage
from worker.errors import PublishAborted, StreamFailed

MAX_BACKOFF_S = 5.0


def backoff_s(first_s: float, failures: int) -> float:
    """Wait after so many failed publishes in a row: doubling, up to a bound."""
    return min(MAX_BACKOFF_S, first_s * 2.0 ** min(failures - 1, 32))


class PublishFailures:
    """Counts refusals, and waits an unreachable Kafka out. For the loop's thread, but ``since``."""

    def __init__(
        self,
        policy: LoopPolicy,
        listener: Listener,
        clock: Callable[[], float],
        wait: Callable[[float], None],
    ) -> None:
        self._policy = policy
        self._listener = listener
        self._clock = clock
        self._wait = wait
        self._refusals = 0
        self._outage = Outage()

    @property
    def since(self) -> float | None:
        """Since when Kafka cannot be reached, None if it can. Safe from any thread."""
        return self._outage.since

    def failed(self, error: PublishAborted, records: int) -> None:
        """Wait before the next try. Raises StreamFailed after too many refusals in a row.

        However long Kafka is not reachable; the loop polls in between.
        """
        if error.unreachable:
            begins = self._outage.since is None
            failures = self._outage.fail(self._clock())
            if begins:
                self._listener(KafkaUnreachable(error))
        else:
            self._refusals += 1
            failures = self._refusals
            self._listener(PublishFailed(records, failures, error))
            if failures >= self._policy.publish_attempts:
                raise StreamFailed(
                    f"{failures} attempts to publish failed in a row: {error}"
                ) from error
        self._wait(backoff_s(self._policy.publish_backoff_s, failures))

    def succeeded(self, now: float) -> None:
        """Begin to count anew."""
        self._refusals = 0
        lasted_s = self._outage.end(now)
        if lasted_s is not None:
            self._listener(KafkaReachable(lasted_s))
