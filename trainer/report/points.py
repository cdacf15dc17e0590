"""Points of a page's short answer: a tone, what is so, and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass

from trainer import numbers

GOOD, WARN, BAD, UNKNOWN = "good", "warn", "bad", "unknown"

MANY_OPENINGS = 5
"""Looks at a hold-out after which it counts as tuned to."""


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the short answer: its tone, what is so, the figures behind it, what to do."""

    tone: str
    claim: str
    detail: str
    more: str = ""


def tell_openings(openings: int) -> str:
    """Return how often a hold-out has been opened, in words."""
    if not openings:
        return "The hold-out has never been opened"
    return f"The hold-out has been opened {numbers.times(openings)}"
