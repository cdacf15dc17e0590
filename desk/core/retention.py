"""For how long a message's text is kept."""

from __future__ import annotations

DAY_MS = 24 * 60 * 60 * 1000


def purge_before_ms(now_ms: int, text_days: float) -> int:
    """Return the time (Unix, ms) of which older texts are deleted."""
    return now_ms - int(text_days * DAY_MS)
