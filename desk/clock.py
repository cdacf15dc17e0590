"""The one place where the desk reads the clock; whatever decides is given the time."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns the present time as milliseconds since 1970."""


def now_ms() -> int:
    """Return the present time as milliseconds since 1970."""
    return time.time_ns() // 1_000_000
