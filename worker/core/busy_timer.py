"""How many messages are in the engine, and for how long there were any."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BusyTimer:
    """Counts messages in and out, from any thread.

    ``busy_s`` is the wall time with at least one message inside: over the time that passed it is
    the share in which the engine had work.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._since = 0.0
        self._total_s = 0.0

    def __len__(self) -> int:
        """Messages inside now."""
        return self._count

    @property
    def busy_s(self) -> float:
        """Seconds with at least one message inside, up to now."""
        with self._lock:
            return self._total_s + (self._clock() - self._since if self._count else 0.0)

    def enter(self) -> None:
        """One message more."""
        with self._lock:
            if not self._count:
                self._since = self._clock()
            self._count += 1

    def leave(self) -> None:
        """One message less."""
        with self._lock:
            self._count -= 1
            if not self._count:
                self._total_s += self._clock() - self._since
