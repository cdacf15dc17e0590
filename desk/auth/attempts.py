"""Slowing down whoever guesses passwords."""

from __future__ import annotations

import threading
from collections import OrderedDict

from desk.clock import Clock

_FREE = 5
_LONGEST_MS = 60_000
_REMEMBERED = 10_000


class Attempts:
    """Counts failures by name, in this process. Safe from any thread.

    Not by address: behind a proxy everybody has one, and whoever guesses would lock all out.

    After ``_FREE`` failures the next attempt has to wait a second, then two, four, up to a
    minute; a success by that name begins anew.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def wait_s(self, name: str) -> float:
        """Return how long to wait before the next attempt, 0 where none is needed."""
        now_ms = self._clock()
        with self._lock:
            _, until_ms = self._failures.get(name, (0, 0))
        return max(0.0, (until_ms - now_ms) / 1000)

    def failed(self, name: str) -> None:
        """Note a failure."""
        now_ms = self._clock()
        with self._lock:
            count = self._failures.pop(name, (0, 0))[0] + 1
            over = max(0, count - _FREE)
            wait_ms = min(_LONGEST_MS, 1000 * 2 ** min(over - 1, 20)) if over else 0
            self._failures[name] = (count, now_ms + wait_ms)
            while len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        with self._lock:
            self._failures.pop(name, None)
