"""A Kafka that cannot be reached while results wait: since when, and how long to wait for it."""

from __future__ import annotations


class Outage:
    """Begins with a publish that failed because Kafka cannot be reached, ends with one that worked.

    ``since`` is when it began, by the loop's clock, and None while there is none; it may be read
    from any thread.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._failures = 0

    def fail(self, now: float) -> int:
        """Note another failure and count those since it began."""
        if self.since is None:
            self.since, self._failures = now, 0
        self._failures += 1
        return self._failures

    def end(self, now: float) -> float | None:
        """Note that a publish has worked; return how long it lasted, None if there was none."""
        since, self.since = self.since, None
        return None if since is None else now - since
