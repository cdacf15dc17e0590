"""A Kafka that cannot be reached while results wait: since when, and how long to wait for it."""

from __future__ import annotations

from worker.errors import PublishAborted, StreamFailed


class Outage:
    """Begins with a publish that failed because Kafka cannot be reached, ends with one that worked.

    ``since`` is when it began, by the loop's clock, and None while there is none; it may be read
    from any thread.
    """

    def __init__(self, max_s: float | None) -> None:
        self.since: float | None = None
        self._max_s = max_s
        self._failures = 0

    def fail(self, error: PublishAborted, now: float) -> int:
        """Note another failure and count those since it began. Raises StreamFailed if too long."""
        if self.since is None:
            self.since, self._failures = now, 0
        self._failures += 1
        if self._max_s is not None and now - self.since > self._max_s:
            raise StreamFailed(
                f"Kafka has not been reachable for {now - self.since:.0f} s "
                f"(loop.max_outage_s): {error}"
            ) from error
        return self._failures

    def end(self, now: float) -> float | None:
        """Note that a publish has worked; return how long it lasted, None if there was none."""
        since, self.since = self.since, None
        return None if since is None else now - since
