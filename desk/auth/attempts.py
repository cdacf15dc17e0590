"""Slowing down whoever guesses passwords."""

from __future__ import annotations

import threading
from collections import OrderedDict

from desk.clock import Clock

_FREE = 5
_LONGEST_MS = 300_000
_REMEMBERED = 10_000


class Attempts:
    """Counts failures by name and by address, in this process. Safe from any thread.

    After ``_FREE`` failures the next attempt has to wait a second, then two, four, up to five
    minutes; a success by that key begins anew.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Return how long to wait before the next attempt, 0 where none is needed."""
        now_ms = self._clock()
        with self._lock:
            until_ms = max((self._failures.get(key, (0, 0))[1] for key in keys), default=0)
        return max(0.0, (until_ms - now_ms) / 1000)

    def failed(self, *keys: str) -> None:
        """Note a failure."""
        now_ms = self._clock()
        with self._lock:
            for key in keys:
                count = self._failures.pop(key, (0, 0))[0] + 1
                over = max(0, count - _FREE)
                wait_ms = min(_LONGEST_MS, 1000 * 2 ** min(over - 1, 20)) if over else 0
                self._failures[key] = (count, now_ms + wait_ms)
            while len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        with self._lock:
            self._failures.pop(key, None)
